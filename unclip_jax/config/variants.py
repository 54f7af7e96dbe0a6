"""Choosing a preset by name inside a config or sweep file."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from unclip_jax.errors import UserError, did_you_mean

T = TypeVar("T")


def choose(variant: str, presets: Mapping[str, Callable[[], T]]) -> T:
    """The preset called `variant`, or a `UserError` that names the nearest one."""
    if variant not in presets:
        raise UserError(f"no variant {variant!r} in this config{did_you_mean(variant, presets)}")
    return presets[variant]()
