"""Presets: one file per stage, each with `get_config(variant)`."""
