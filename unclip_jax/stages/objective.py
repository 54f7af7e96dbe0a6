"""The diffusion loss that prior, decoder and upsampler share: draw t and noise, corrupt, compare.

Diagnostics are split by quartile of the timestep (q0 cleanest, q3 noisiest): a mean over all t
hides which end of the process is being learned.

With `time_sampler="importance"` timesteps are drawn by the losses they gave, see
`diffusion.timesteps`. That memory, [T], is the stage's `Memory`: part of the training state,
updated after each step. Without one at hand, as in validation, timesteps are uniform; the expected
loss is the same.

Stratified timesteps cover a whole batch evenly: in training they are drawn by `prepare`, before the
batch is taken apart, and travel as a field of it. Without that field they are of the rows at hand.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.schema import RunConfig
from unclip_jax.core import rng
from unclip_jax.diffusion import (
    GaussianProcess,
    Objective,
    importance_weights,
    sample_important_timesteps,
    sample_timesteps,
    training_loss,
    update_second_moments,
)
from unclip_jax.stages.schedule import training_schedule
from unclip_jax.stages.stage import MEMORY, Batch, Diagnostics, Memory, Params, Prepare

Network = Callable[[Array, Array], Array]
TIMESTEP = "timestep"  # of a prepared batch


@dataclasses.dataclass(frozen=True)
class DiffusionLoss:
    """The configured process and objective, applied to a network by `__call__`."""

    process: GaussianProcess
    objective: Objective
    time_sampler: str

    def __call__(
        self,
        network: Network,
        x0: Float[Array, "b *data"],
        keys: Key[Array, " b"],
        frozen: Params,
        batch: Batch,
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        """Per-example losses and diagnostics of `network(x_t, t)` on clean data `x0`.

        Example i's timestep and noise come from keys[i] (and the memory, or its stratum) alone.
        """
        if TIMESTEP in batch:
            t, correction = batch[TIMESTEP], jnp.ones(len(keys), jnp.float32)
        else:
            t, correction = self.timesteps(keys, frozen.get(MEMORY))
        noise = rng.normal(rng.fold_in_name(keys, "noise"), x0.shape[1:])
        x_t = self.process.corrupt(x0, t, noise)
        loss, diagnostics = training_loss(
            self.process, self.objective, network(x_t, t), x0=x0, x_t=x_t, noise=noise, t=t
        )
        return loss * correction, by_quartile(diagnostics, t, self.process.num_steps)

    def timesteps(
        self, keys: Key[Array, " b"], memory: Float[Array, " t"] | None
    ) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
        """t of each example, and what its loss is multiplied by."""
        if self.time_sampler == "importance" and memory is not None:
            return sample_important_timesteps(keys, importance_weights(memory))
        kind = "uniform" if self.time_sampler == "importance" else self.time_sampler
        t = sample_timesteps(keys, self.process.num_steps, kind)
        return t, jnp.ones(t.shape, jnp.float32)

    @property
    def prepare(self) -> Prepare | None:
        """Gives each row of a whole batch its stratified timestep."""
        if self.time_sampler != "stratified":
            return None

        def prepare(batch: Batch, keys: Key[Array, " b"]) -> Batch:
            t = sample_timesteps(keys, self.process.num_steps, "stratified")
            return {**batch, TIMESTEP: t}

        return prepare

    @property
    def memory(self) -> Memory | None:
        """The mean squared loss of each step, for the importance sampler."""
        if self.time_sampler != "importance":
            return None
        return Memory(lambda: jnp.ones(self.process.num_steps, jnp.float32), self._remember)

    def _remember(
        self, memory: Float[Array, " t"], losses: Float[Array, " b"], keys: Key[Array, " b"]
    ) -> Float[Array, " t"]:
        t, correction = self.timesteps(keys, memory)
        return update_second_moments(memory, t, losses / correction)


def diffusion_loss(config: RunConfig, num_levels: int | None) -> DiffusionLoss:
    """The loss of a config; `num_levels` is 256 for pictures, None for continuous data."""
    diffusion = config.diffusion
    return DiffusionLoss(
        GaussianProcess(training_schedule(config)),
        Objective(
            prediction=diffusion.prediction,
            learned_variance=diffusion.learned_variance,
            loss=diffusion.loss,
            weighting=diffusion.weighting,
            vlb_weight=diffusion.vlb_weight,
            huber_delta=diffusion.huber_delta,
            min_snr_gamma=diffusion.min_snr_gamma,
            p2_gamma=diffusion.p2_gamma,
            p2_k=diffusion.p2_k,
            num_levels=num_levels,
        ),
        diffusion.time_sampler,
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
