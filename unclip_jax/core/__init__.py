"""Foundations: random streams, precision policy, parameter trees."""
