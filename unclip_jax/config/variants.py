"""Choosing a preset by name inside a config file."""

from collections.abc import Callable, Mapping

import ml_collections

from unclip_jax.errors import UserError, did_you_mean


def choose(
    variant: str, presets: Mapping[str, Callable[[], ml_collections.ConfigDict]]
) -> ml_collections.ConfigDict:
    """The preset called `variant`, or a `UserError` that names the nearest one."""
    if variant not in presets:
        raise UserError(f"no variant {variant!r} in this config{did_you_mean(variant, presets)}")
    return presets[variant]()
