"""Drawing from a diffusion stage: initial noise, guidance and sampler, as its config says.

One compiled program draws a batch; guidance scale and keys are arguments of it. Example i depends
on keys[i] and on its own conditioning only.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from unclip_jax.config.schema import Diffusion, RunConfig, Sampling
from unclip_jax.diffusion import (
    DynamicThresholding,
    GaussianProcess,
    Guidance,
    Moments,
    NoiseSchedule,
    Sampler,
    StaticThresholding,
    initial_noise,
    make_denoiser,
    make_sampler,
    sample,
    spaced_timesteps,
)
from unclip_jax.diffusion.guidance import Network
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.thresholding import Thresholding
from unclip_jax.errors import UserError
from unclip_jax.stages.schedule import training_schedule


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a network is given beside x_t and t.

    Attributes:
      cond: the condition.
      uncond: what guidance moves away from; None for stages without guidance.
      partial: `cond` without its text, where text can be guided on its own; else None.
    """

    cond: Any
    uncond: Any = None
    partial: Any = None


def draw(
    network: Network,
    conditions: Conditions,
    shape: tuple[int, ...],
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    sampling: Sampling,
    guidance_scale: Float[Array, ""] | float,
) -> Float[Array, "b *data"]:
    """One sample per key, [B, *shape].

    Args:
      network: (x_t, t, condition) -> raw output.
      conditions: pytrees with the batch leading.
      shape: of one example.
      keys: one per example.
      config: how the network was trained.
      sampling: sampler and steps. Its `guidance_scale` only decides, statically, whether the
        unconditional pass is computed at all: not if it is 1.
      guidance_scale: the scale in force; may be traced.
    """
    schedule = training_schedule(config)
    guidance = make_guidance(conditions, sampling, guidance_scale)
    denoiser = make_denoiser(
        network,
        GaussianProcess(schedule),
        config.diffusion.prediction,
        conditioning=conditions.cond if guidance is None else None,
        learned_variance=config.diffusion.learned_variance,
        guidance=guidance,
        thresholding=make_thresholding(sampling),
    )
    sampler = configured_sampler(schedule, config.diffusion, sampling)
    return sample(sampler, denoiser, initial_noise(keys, shape), keys)


def make_guidance(
    conditions: Conditions, sampling: Sampling, guidance_scale: Float[Array, ""] | float
) -> Guidance | None:
    """The configured guidance; None if there is none.

    With a `text_guidance_scale` of its own, `guidance_scale` is that of the other conditions.
    """
    text_scale = sampling.text_guidance_scale
    if conditions.uncond is None or (sampling.guidance_scale == 1.0 and text_scale is None):
        return None
    options: dict[str, Any] = {
        "interval": sampling.guidance_interval,
        "rescale": sampling.guidance_rescale or None,
    }
    if text_scale is None:
        return Guidance(conditions.cond, conditions.uncond, guidance_scale, **options)
    if conditions.partial is None:
        raise UserError(
            "sampling.text_guidance_scale: this stage has no condition beside its text, so that "
            "guidance_scale is the only one"
        )
    return Guidance(
        conditions.cond,
        conditions.uncond,
        text_scale,
        intermediate=conditions.partial,
        intermediate_scale=guidance_scale,
        **options,
    )


def make_thresholding(sampling: Sampling) -> Thresholding | None:
    """How the predicted x_0 is confined; None if it is not."""
    if sampling.clip_range is None:
        return None
    if sampling.thresholding == "dynamic":
        return DynamicThresholding(sampling.threshold_quantile, sampling.clip_range)
    return StaticThresholding(sampling.clip_range)


def configured_sampler(
    schedule: NoiseSchedule, diffusion: Diffusion, sampling: Sampling
) -> Sampler:
    """The sampler of a config.

    Raises:
      UserError: an unknown sampler, steps that the schedule has not, or missing moments.
    """
    spacing = spacing_of(sampling)
    options = _options(spacing, diffusion, sampling)
    return make_sampler(sampling.sampler, schedule, spacing, **options)


def check_sampling(config: RunConfig) -> None:
    """Raises the `UserError` that drawing would, but for moments that are still to be estimated."""
    sampling = config.sampling
    if sampling.sampler == "analytic_dpm" and not sampling.moments:
        sampling = dataclasses.replace(sampling, sampler="ddpm")
    configured_sampler(training_schedule(config), config.diffusion, sampling)


def spacing_of(sampling: Sampling) -> Spacing:
    """Which timesteps are visited, as `diffusion.respacing` writes it."""
    return sampling.steps if sampling.spacing is None else sampling.spacing


def _options(spacing: Spacing, diffusion: Diffusion, sampling: Sampling) -> dict[str, Any]:
    """The options of the named sampler that the config decides."""
    match sampling.sampler:
        case "ddim":
            return {"eta": sampling.eta}
        case "ddpm":
            learned = "learned_range" if diffusion.learned_variance else "fixed_small"
            return {"variance": sampling.variance or learned}
        case "analytic_dpm":
            visited = spaced_timesteps(diffusion.num_steps, spacing)
            if len(visited) != len(sampling.moments):
                raise UserError(
                    f"sampling.sampler=analytic_dpm needs a moment for each of {len(visited)} "
                    f"steps, but has {len(sampling.moments)}: estimate them with `unclip moments`"
                )
            moments = Moments(visited, np.array(sampling.moments), examples=0)
            return {"moments": moments, "limit": sampling.clip_range}
    return {}
