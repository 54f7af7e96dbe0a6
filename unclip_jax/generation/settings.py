"""How each stage of a cascade samples: its own config, with what the caller asks for put over it.

{"prior": {"steps": 10}, "decoder": {"sampler": "ddpm", "guidance_scale": 3.0}}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unclip_jax.config.data_settings import Data
from unclip_jax.config.diffusion_settings import Sampling
from unclip_jax.config.schema import Precision, RunConfig
from unclip_jax.config.typed import build, to_plain
from unclip_jax.diffusion import SAMPLERS
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation.cascade import Cascade
from unclip_jax.stages.configured_sampler import configured_sampler
from unclip_jax.stages.schedule import training_schedule

Overrides = Mapping[str, Mapping[str, Any]]

NOT_FOR_DRAWING = ("ddim_inversion",)  # it runs the other way


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
        _check(name, resolved[name], stage.config)
    return resolved


def compiled_part(config: RunConfig, sampling: Sampling | None = None) -> RunConfig:
    """A stage's config as far as programs depend on it.

    Which data it was trained on is left out; the precision is the one that `sampling` asks for.
    """
    precision = config.precision
    if sampling is not None and sampling.compute is not None:
        precision = Precision(compute=sampling.compute)
    return dataclasses.replace(config, data=Data(), sampling=Sampling(), precision=precision)


def _check(name: str, sampling: Sampling, config: RunConfig) -> None:
    num_steps = config.diffusion.num_steps
    known = [s for s in SAMPLERS if s not in NOT_FOR_DRAWING]
    if sampling.sampler not in known:
        hint = did_you_mean(sampling.sampler, known)
        raise UserError(f"sampling.{name}.sampler: no sampler {sampling.sampler!r}{hint}")
    if not 1 <= sampling.steps <= num_steps:
        raise UserError(
            f"sampling.{name}.steps: must be 1 to {num_steps}, the number of steps that the stage "
            f"was trained with, got {sampling.steps}"
        )
    most_noise = getattr(config.model, "noise_augmentation", 0.0)
    if not 0 <= sampling.low_noise <= most_noise:
        raise UserError(
            f"sampling.{name}.low_noise: must be 0 to {most_noise:g}, the noise augmentation that "
            f"the stage was trained with, got {sampling.low_noise}"
        )
    if sampling.candidates < 1:
        raise UserError(f"sampling.{name}.candidates: must be positive, got {sampling.candidates}")
    if sampling.text_guidance_scale is not None and config.stage != "decoder":
        raise UserError(
            f"sampling.{name}.text_guidance_scale: only a decoder has another condition beside its "
            "text"
        )
    try:
        configured_sampler(training_schedule(config), config.diffusion, sampling)
    except UserError as error:
        raise UserError(f"sampling.{name}: {error}") from None
