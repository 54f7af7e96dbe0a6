"""Drawing from a diffusion stage: where it starts, guidance and sampler, as its config says.

A `Plan` is what the config says, as an argument of the compiled program: step table, guidance
scales and bounds can change without compiling anew; only the number of steps, the kind of step and
whether there is guidance at all are part of the program. Example i depends on keys[i] and on its
own conditioning only.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unclip_jax.config.diffusion_settings import Sampling
from unclip_jax.config.schema import RunConfig
from unclip_jax.diffusion import (
    Denoiser,
    DynamicThresholding,
    GaussianProcess,
    Guidance,
    Known,
    Sampler,
    StaticThresholding,
    initial_noise,
    make_denoiser,
    make_sampler,
    repaint,
    repaint_sampler,
    respace,
    sample,
)
from unclip_jax.diffusion.guidance import Network
from unclip_jax.diffusion.thresholding import Thresholding
from unclip_jax.errors import UserError
from unclip_jax.stages.configured_sampler import configured_sampler, spacing_of
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


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "sampler",
        "guidance_scale",
        "text_guidance_scale",
        "guidance_interval",
        "guidance_rescale",
        "clip_range",
        "threshold_quantile",
        "low_noise",
    ],
    meta_fields=["candidates"],
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """How to draw; a pytree of numbers. See `config.schema.Sampling` for what they mean.

    Attributes:
      sampler: its step table.
      guidance_scale: None leaves the unconditional pass out.
      threshold_quantile: None for static thresholding.
      low_noise: steps of noise on an upsampler's small picture.
    """

    sampler: Sampler
    guidance_scale: Any = None
    text_guidance_scale: Any = None
    guidance_interval: Any = None
    guidance_rescale: Any = None
    clip_range: Any = None
    threshold_quantile: Any = None
    low_noise: Any = 0
    candidates: int = 1


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How RePaint walks, see `diffusion.repaint`."""

    jump: int = 5
    resamples: int = 2


def make_plan(
    config: RunConfig,
    sampling: Sampling | None = None,
    *,
    strength: float = 1.0,
    resampling: Resampling | None = None,
) -> Plan:
    """The plan of a stage's settings.

    Args:
      config: how the network was trained.
      sampling: the settings in force; by default the config's.
      strength: the part of the process that is walked, (0, 1]; all steps are spent on it, evenly.
        Less than 1 is for starting from a picture.
      resampling: given, the plan keeps a known part of the picture.
    """
    sampling = config.sampling if sampling is None else sampling
    schedule = walked = training_schedule(config)
    if strength < 1:
        walked = respace(schedule, np.arange(max(1, round(strength * schedule.num_steps))))
        few = min(sampling.steps, walked.num_steps)
        sampling = dataclasses.replace(sampling, steps=few, spacing=None)
    sampler = configured_sampler(walked, config.diffusion, sampling)
    if resampling is not None:
        sampler = repaint_sampler(sampler, schedule, **dataclasses.asdict(resampling))
    return _plan(sampler, config, sampling)


def inversion_plan(config: RunConfig, sampling: Sampling, iterations: int) -> Plan:
    """The plan that walks from pictures to the x_T which DDIM without noise turns into them."""
    sampler = make_sampler(
        "ddim_inversion", training_schedule(config), spacing_of(sampling), iterations=iterations
    )
    return _plan(sampler, config, dataclasses.replace(sampling, clip_range=None))


def start(
    plan: Plan,
    config: RunConfig,
    keys: Key[Array, " b"],
    shape: tuple[int, ...],
    *,
    noise: Float[Array, "b *data"] | None = None,
    picture: Float[Array, "b *data"] | None = None,
) -> Float[Array, "b *data"]:
    """Where sampling begins: noise (given, or each key's own), or a picture with noise on it."""
    noise = initial_noise(keys, shape) if noise is None else noise
    if picture is None:
        return noise
    first = jnp.full(len(noise), plan.sampler.table["t"][0], jnp.int32)
    return GaussianProcess(training_schedule(config)).corrupt(picture, first, noise)


def draw(
    network: Network,
    conditions: Conditions,
    x: Float[Array, "b *data"],
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    plan: Plan,
    known: Known | None = None,
    last_network: Network | None = None,
) -> Float[Array, "b *data"]:
    """One sample per key, from the `start` x.

    Args:
      network: (x_t, t, condition) -> raw output.
      conditions: pytrees with the batch leading.
      keys: one per example.
      config: how the network was trained.
      known: what to keep; the plan must be made with `resampling`.
      last_network: another network for the last step, t = 0; None leaves it to `network`.
    """
    denoiser = partial(_denoiser, conditions=conditions, config=config, plan=plan)
    if known is not None:
        whole = network if last_network is None else _switched(network, last_network)
        return repaint(plan.sampler, denoiser(whole), x, keys, known)
    if last_network is None:
        return sample(plan.sampler, denoiser(network), x, keys)
    x = sample(plan.sampler[:-1], denoiser(network), x, keys)
    return sample(plan.sampler[-1:], denoiser(last_network), x, keys)


def _denoiser(network: Network, conditions: Conditions, config: RunConfig, plan: Plan) -> Denoiser:
    guidance = make_guidance(conditions, plan)
    return make_denoiser(
        network,
        GaussianProcess(training_schedule(config)),
        config.diffusion.prediction,
        conditioning=conditions.cond if guidance is None else None,
        learned_variance=config.diffusion.learned_variance,
        guidance=guidance,
        thresholding=make_thresholding(plan),
    )


def _switched(network: Network, last_network: Network) -> Network:
    """`last_network` at t = 0, where a walk that goes back and forth may come by several times."""

    def switched(x_t: Array, t: Array, condition: Any) -> Array:
        return jax.lax.cond(t[0] == 0, last_network, network, x_t, t, condition)

    return switched


def make_guidance(conditions: Conditions, plan: Plan) -> Guidance | None:
    """The planned guidance; None if there is none.

    With a `text_guidance_scale` of its own, `guidance_scale` is that of the other conditions.
    """
    scale, text_scale = plan.guidance_scale, plan.text_guidance_scale
    if conditions.uncond is None or scale is None:
        return None
    options = {"interval": plan.guidance_interval, "rescale": plan.guidance_rescale}
    if text_scale is None:
        return Guidance(conditions.cond, conditions.uncond, scale, **options)
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
        intermediate_scale=scale,
        **options,
    )


def make_thresholding(plan: Plan) -> Thresholding | None:
    """How the predicted x_0 is confined; None if it is not."""
    if plan.clip_range is None:
        return None
    if plan.threshold_quantile is not None:
        return DynamicThresholding(plan.threshold_quantile, plan.clip_range)
    return StaticThresholding(plan.clip_range)


def _plan(sampler: Sampler, config: RunConfig, sampling: Sampling) -> Plan:
    scale, text_scale = sampling.guidance_scale, sampling.text_guidance_scale
    interval, limit = sampling.guidance_interval, sampling.clip_range
    dynamic = sampling.thresholding == "dynamic" and limit is not None
    number = np.float32
    return Plan(
        sampler=sampler,
        guidance_scale=None if scale == 1.0 and text_scale is None else number(scale),
        text_guidance_scale=None if text_scale is None else number(text_scale),
        guidance_interval=None if interval is None else tuple(map(np.int32, interval)),
        guidance_rescale=number(sampling.guidance_rescale) if sampling.guidance_rescale else None,
        clip_range=None if limit is None else number(limit),
        threshold_quantile=number(sampling.threshold_quantile) if dynamic else None,
        low_noise=np.int32(round(sampling.low_noise * config.diffusion.num_steps)),
        candidates=sampling.candidates,
    )
