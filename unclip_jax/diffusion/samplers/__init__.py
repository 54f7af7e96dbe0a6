"""Samplers: from noise to data through a denoiser. One file for each; `SAMPLERS` names them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from unclip_jax.diffusion.choices import build
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.analytic_dpm import analytic_dpm
from unclip_jax.diffusion.samplers.base import Sampler, initial_noise, sample
from unclip_jax.diffusion.samplers.ddim import ddim, ddim_inversion
from unclip_jax.diffusion.samplers.ddpm import ddpm
from unclip_jax.diffusion.samplers.dpm_solver import dpm_solver_2m, dpm_solver_2m_sde
from unclip_jax.diffusion.samplers.heun import heun
from unclip_jax.diffusion.samplers.plms import plms
from unclip_jax.diffusion.schedule import NoiseSchedule

SAMPLERS: Mapping[str, Callable[..., Sampler]] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "ddim_inversion": ddim_inversion,
        "dpm++2m": dpm_solver_2m,
        "dpm++2m_sde": dpm_solver_2m_sde,
        "heun": heun,
        "plms": plms,
        "analytic_dpm": analytic_dpm,
    }
)


def make_sampler(name: str, schedule: NoiseSchedule, num_steps: Spacing, **options: Any) -> Sampler:
    """A sampler by name, see `SAMPLERS`.

    Args:
      schedule: the one the network was trained with.
      num_steps: a count or a spacing, see `respacing.spaced_timesteps`.
      options: those of the named function, such as ddim's eta.

    Raises:
      UserError: unknown name or option, or steps that the schedule does not have.
    """
    return build(SAMPLERS, "sampler", name, schedule, num_steps, **options)


__all__ = ["SAMPLERS", "Sampler", "initial_noise", "make_sampler", "sample"]
