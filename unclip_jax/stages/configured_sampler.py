"""The sampler that a config's settings name, with the options that they decide."""

import dataclasses
from typing import Any

import numpy as np

from unclip_jax.config.diffusion_settings import Diffusion, Sampling
from unclip_jax.config.schema import RunConfig
from unclip_jax.diffusion import Moments, NoiseSchedule, Sampler, make_sampler, spaced_timesteps
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.errors import UserError
from unclip_jax.stages.schedule import training_schedule


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
