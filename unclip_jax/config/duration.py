"""Durations in the unit that suits the reader: steps, epochs or examples.

'500 steps', '3 epochs', '1.5M examples' -> a number of optimiser steps, rounded up.
"""

import math
import re

from unclip_jax.errors import UserError, did_you_mean

_PATTERN = re.compile(r"\s*([0-9][0-9_.]*)\s*([kKmM]?)\s*([a-z]+)\s*")
_UNITS = ("steps", "epochs", "examples")


def parse_duration(text: str, where: str) -> tuple[float, str]:
    """(amount, unit) of a duration; `where` is the setting's name for the error."""
    match = _PATTERN.fullmatch(text)
    if not match:
        raise UserError(f"{where}: {text!r} is not a duration such as '500 steps' or '3 epochs'")
    number, suffix, unit = match.groups()
    unit = unit if unit.endswith("s") else unit + "s"
    if unit not in _UNITS:
        raise UserError(f"{where}: unknown unit {unit!r}{did_you_mean(unit, _UNITS)}")
    amount = float(number.replace("_", "")) * {"": 1, "k": 1e3, "m": 1e6}[suffix.lower()]
    return amount, unit


def to_steps(text: str, *, batch_size: int, dataset_size: int, where: str) -> int:
    """The duration in optimiser steps, at least 1.

    Args:
      text: such as '3 epochs'.
      batch_size: examples per step.
      dataset_size: examples per epoch.
      where: the setting's name, for errors.
    """
    amount, unit = parse_duration(text, where)
    examples_per_unit = {"steps": batch_size, "epochs": dataset_size, "examples": 1}[unit]
    return max(1, math.ceil(amount * examples_per_unit / batch_size - 1e-9))
