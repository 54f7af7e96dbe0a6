"""The diffusion loss that prior, decoder and upsampler share: draw t and noise, corrupt, compare.

Diagnostics are split by quartile of the timestep (q0 cleanest, q3 noisiest): a mean over all t
hides which end of the process is being learned.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.schema import Diffusion
from unclip_jax.core import rng
from unclip_jax.diffusion import (
    GaussianProcess,
    Objective,
    make_schedule,
    sample_timesteps,
    training_loss,
)
from unclip_jax.stages.stage import Diagnostics

Network = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class DiffusionLoss:
    """The configured process and objective, applied to a network by `__call__`."""

    process: GaussianProcess
    objective: Objective
    time_sampler: str

    def __call__(
        self, network: Network, x0: Float[Array, "b *data"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        """Per-example losses and diagnostics of `network(x_t, t)` on clean data `x0`.

        Example i's timestep and noise come from keys[i] alone.
        """
        t = sample_timesteps(keys, self.process.num_steps, self.time_sampler)
        noise = rng.normal(rng.fold_in_name(keys, "noise"), x0.shape[1:])
        x_t = self.process.corrupt(x0, t, noise)
        loss, diagnostics = training_loss(
            self.process, self.objective, network(x_t, t), x0=x0, x_t=x_t, noise=noise, t=t
        )
        return loss, by_quartile(diagnostics, t, self.process.num_steps)


def diffusion_loss(config: Diffusion, num_levels: int | None) -> DiffusionLoss:
    """The loss of a config; `num_levels` is 256 for pictures, None for continuous data."""
    return DiffusionLoss(
        GaussianProcess(make_schedule(config.schedule, config.num_steps)),
        Objective(
            prediction=config.prediction,
            learned_variance=config.learned_variance,
            loss=config.loss,
            weighting=config.weighting,
            vlb_weight=config.vlb_weight,
            num_levels=num_levels,
        ),
        config.time_sampler,
    )


def by_quartile(
    diagnostics: dict[str, Float[Array, " b"]], t: Int[Array, " b"], num_steps: int
) -> Diagnostics:
    """{'simple': [B]} -> {'simple_q0': (values, weights) … 'simple_q3'} by quarter of [0, T)."""
    quartile = (4 * t) // num_steps
    return {
        f"{name}_q{q}": (values, (quartile == q).astype(jnp.float32))
        for name, values in diagnostics.items()
        for q in range(4)
    }
