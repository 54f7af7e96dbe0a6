"""Sweeps: one file for each question, with `get_sweep(variant)`."""
