"""How each stage of a cascade samples: its own config, with what the caller asks for put over it.

{"prior": {"steps": 10}, "decoder": {"sampler": "ddpm", "guidance_scale": 3.0}}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unclip_jax.config.schema import Sampling
from unclip_jax.config.typed import build, to_plain
from unclip_jax.diffusion import SAMPLERS
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation.cascade import Cascade

Overrides = Mapping[str, Mapping[str, Any]]

# Samplers that a name alone does not make: one runs backwards, one needs moments of the data.
NOT_BY_NAME = ("ddim_inversion", "analytic_dpm")


def resolve(cascade: Cascade, overrides: Overrides | None = None) -> dict[str, Sampling]:
    """The sampling of every diffusion stage.

    Args:
      overrides: {stage name: {setting of `Sampling`: value}}.

    Raises:
      UserError: an unknown stage, setting or sampler, or a value out of range.
    """
    stages = {name: s for name, s in cascade.named().items() if name != "clip"}
    overrides = overrides or {}
    for name in overrides:
        if name not in stages:
            raise UserError(f"sampling.{name}: no such stage here{did_you_mean(name, stages)}")
    resolved = {}
    for name, stage in stages.items():
        values = {**to_plain(stage.config.sampling), **overrides.get(name, {})}
        resolved[name] = build(Sampling, values, f"sampling.{name}")
        _check(name, resolved[name], stage.config.diffusion.num_steps)
    return resolved


def compiled_part(sampling: Sampling) -> Sampling:
    """The settings that a compiled program depends on.

    The guidance scale is an argument of the program; only whether there is guidance at all is part
    of it, and stands here as the scale 0 (some) or 1 (none).
    """
    return dataclasses.replace(
        sampling, guidance_scale=1.0 if sampling.guidance_scale == 1.0 else 0.0
    )


def _check(name: str, sampling: Sampling, num_steps: int) -> None:
    known = [s for s in SAMPLERS if s not in NOT_BY_NAME]
    if sampling.sampler not in known:
        hint = did_you_mean(sampling.sampler, known)
        raise UserError(f"sampling.{name}.sampler: no sampler {sampling.sampler!r}{hint}")
    if not 1 <= sampling.steps <= num_steps:
        raise UserError(
            f"sampling.{name}.steps: must be 1 to {num_steps}, the number of steps that the stage "
            f"was trained with, got {sampling.steps}"
        )
    if sampling.candidates < 1:
        raise UserError(f"sampling.{name}.candidates: must be positive, got {sampling.candidates}")
