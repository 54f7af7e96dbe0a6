"""Drawing from a diffusion stage: initial noise, guidance and sampler, as its config says.

One compiled program draws a batch; guidance scale and keys are arguments of it. Example i depends
on keys[i] and on its own conditioning only.
"""

import dataclasses
from typing import Any

from jaxtyping import Array, Float, Key

from unclip_jax.config.schema import Diffusion, Sampling
from unclip_jax.diffusion import (
    GaussianProcess,
    Guidance,
    StaticThresholding,
    initial_noise,
    make_denoiser,
    make_sampler,
    make_schedule,
    sample,
)
from unclip_jax.diffusion.guidance import Network


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a network is given beside x_t and t.

    Attributes:
      cond: the condition.
      uncond: what guidance moves away from; None for stages without guidance.
    """

    cond: Any
    uncond: Any = None


def draw(
    network: Network,
    conditions: Conditions,
    shape: tuple[int, ...],
    keys: Key[Array, " b"],
    *,
    diffusion: Diffusion,
    sampling: Sampling,
    guidance_scale: Float[Array, ""] | float,
) -> Float[Array, "b *data"]:
    """One sample per key, [B, *shape].

    Args:
      network: (x_t, t, condition) -> raw output.
      conditions: pytrees with the batch leading.
      shape: of one example.
      keys: one per example.
      diffusion: how the network was trained.
      sampling: sampler and steps. Its `guidance_scale` only decides, statically, whether the
        unconditional pass is computed at all: not if it is 1.
      guidance_scale: the scale in force; may be traced.
    """
    schedule = make_schedule(diffusion.schedule, diffusion.num_steps)
    guided = conditions.uncond is not None and sampling.guidance_scale != 1.0
    denoiser = make_denoiser(
        network,
        GaussianProcess(schedule),
        diffusion.prediction,
        conditioning=None if guided else conditions.cond,
        learned_variance=diffusion.learned_variance,
        guidance=Guidance(conditions.cond, conditions.uncond, guidance_scale) if guided else None,
        thresholding=None
        if sampling.clip_range is None
        else StaticThresholding(sampling.clip_range),
    )
    sampler = make_sampler(
        sampling.sampler, schedule, sampling.steps, **_options(diffusion, sampling)
    )
    return sample(sampler, denoiser, initial_noise(keys, shape), keys)


def _options(diffusion: Diffusion, sampling: Sampling) -> dict[str, Any]:
    """The options of the named sampler that the config decides."""
    if sampling.sampler == "ddim":
        return {"eta": sampling.eta}
    if sampling.sampler == "ddpm":
        return {"variance": "learned_range" if diffusion.learned_variance else "fixed_small"}
    return {}
