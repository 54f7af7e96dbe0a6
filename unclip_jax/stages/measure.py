"""What is measured of a trained diffusion stage: the bound on its likelihood, and the moments that
Analytic-DPM samples with. Both see the network as sampling does, but with neither guidance nor
thresholding, and every example with its own condition.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unclip_jax.config.schema import DecoderModel, RunConfig, UpsamplerModel
from unclip_jax.diffusion import (
    Bound,
    Denoiser,
    GaussianProcess,
    Variance,
    make_denoiser,
    respace,
    spaced_timesteps,
    variational_bound,
)
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.analytic_dpm import squared_epsilon
from unclip_jax.errors import UserError
from unclip_jax.stages.configured_sampler import spacing_of
from unclip_jax.stages.schedule import training_schedule
from unclip_jax.stages.stage import Batch, Params, Stage


def bound(
    config: RunConfig,
    stage: Stage,
    params: Params,
    frozen: Params,
    batch: Batch,
    keys: Key[Array, " b"],
    *,
    variance: Variance,
    steps: Spacing | None = None,
) -> Bound:
    """The variational bound of each example, in bits per dimension.

    Pictures count as values of 256 levels, embeddings as continuous, on the scale they are diffused
    at: there the bound is one on a density, and can be negative.

    Args:
      steps: of the chain whose bound it is; None: all that the network was trained with.
    """
    schedule = training_schedule(config)
    denoiser, x0 = _denoiser(config, stage, params, frozen, batch, keys)
    if steps is not None:
        schedule = respace(schedule, spaced_timesteps(schedule.num_steps, steps))
    pictures = isinstance(config.model, DecoderModel | UpsamplerModel)
    return variational_bound(
        GaussianProcess(schedule),
        denoiser,
        x0,
        keys,
        variance=variance,
        num_levels=256 if pictures else None,
    )


def moments(
    config: RunConfig,
    stage: Stage,
    params: Params,
    frozen: Params,
    batch: Batch,
    keys: Key[Array, " b"],
) -> Float[Array, "k b"]:
    """The mean squared epsilon of each example at each timestep that `config.sampling` visits."""
    timesteps = spaced_timesteps(config.diffusion.num_steps, spacing_of(config.sampling))
    denoiser, x0 = _denoiser(config, stage, params, frozen, batch, keys)
    process = GaussianProcess(training_schedule(config))
    return squared_epsilon(process, denoiser, x0, keys, jnp.asarray(timesteps))


def default_variance(config: RunConfig) -> Variance:
    """The learned variance if there is one, else that of the config, else fixed_large."""
    if config.diffusion.learned_variance:
        return Variance.LEARNED_RANGE
    return Variance(config.sampling.variance or "fixed_large")


def _denoiser(
    config: RunConfig,
    stage: Stage,
    params: Params,
    frozen: Params,
    batch: Batch,
    keys: Key[Array, " b"],
) -> tuple[Denoiser, Float[Array, "b *data"]]:
    if stage.task is None:
        raise UserError(f"stage {stage.name} draws nothing: there is no diffusion to measure")
    network, x0 = stage.task(params, frozen, batch, keys)
    denoiser = make_denoiser(
        lambda x, t, _: network(x, t),
        GaussianProcess(training_schedule(config)),
        config.diffusion.prediction,
        learned_variance=config.diffusion.learned_variance,
    )
    return denoiser, x0
