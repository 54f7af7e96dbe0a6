"""One optimiser step as one compiled program: loss, gradients, update, moving average, metrics."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from unclip_jax.core import rng
from unclip_jax.parallel import batch_sharding, replicated
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.stages.stage import MEMORY, Batch, Diagnostics, Stage
from unclip_jax.training import ema
from unclip_jax.training.gradients import loss_and_gradients
from unclip_jax.training.guard import all_finite, keep_if_finite
from unclip_jax.training.layout import axes_with_whole_weights
from unclip_jax.training.optimizer import Optimizer
from unclip_jax.training.state import TrainState
from unclip_jax.training.update import make_update

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    stage: Stage,
    tx: Optimizer,
    schedule: optax.Schedule,
    *,
    ema_decay: ema.DecayAt,
    seed: int,
    mesh: AnyMesh,
    state_shardings: TrainState,
    accumulate: int = 1,
    averages: Mapping[str, ema.RateAt] | None = None,
) -> TrainStep:
    """The jitted step (state, frozen, batch) -> (state, metrics); the state is donated.

    Every random draw of the step comes from (seed, "train", step, row of the batch), so it does
    not depend on the mesh and a resumed run repeats it. An update that is not finite is left out
    (`guard.py`) and counted in the metric "skipped".

    Args:
      accumulate: in how many parts the batch is computed (see `gradients`).
      averages: rates of those that the state has beside `ema_params`.
    """
    axes = axes_with_whole_weights(state_shardings)
    update = make_update(tx, state_shardings, stage.constrain)

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        rows = jax.tree.leaves(batch)[0].shape[0]
        keys = rng.example_keys(jax.random.key(seed), "train", state.step, rows)
        if stage.prepare is not None:
            batch = stage.prepare(batch, keys)
        known = frozen if stage.memory is None else {**frozen, MEMORY: state.memory}
        (losses, diagnostics), grads = loss_and_gradients(
            stage, state.params, known, batch, keys, parts=accumulate, axes=axes
        )
        # Where moments lie in parts, gradients are wanted in these parts only.
        grads = jax.lax.with_sharding_constraint(grads, state_shardings.ema_params)
        loss = jnp.mean(losses)
        norm = optax.tree.norm(grads)
        finite = all_finite(loss, norm)
        params, opt_state, moved = update(grads, state.opt_state, state.params, finite)
        decay = ema_decay(state.step)
        metrics = {
            "loss": loss,
            **reduce_diagnostics(diagnostics),
            "grad_norm": norm,
            "update_norm": moved,
            "param_norm": optax.tree.norm(params),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "ema_decay": decay,
            "skipped": 1 - finite.astype(jnp.float32),
        }
        memory = state.memory
        if stage.memory is not None:
            memory = stage.memory.update(memory, losses, keys)
        averaged = ema.update(state.ema_params, params, decay)
        others = ema.update_all(state.averages, params, averages or {}, state.step)
        averaged, memory, others = keep_if_finite(
            finite, (averaged, memory, others), (state.ema_params, state.memory, state.averages)
        )
        return TrainState(state.step + 1, params, averaged, opt_state, memory, others), metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state_shardings, None, batch_sharding(mesh)),
        out_shardings=(state_shardings, replicated(mesh)),
    )


def make_eval_step(
    stage: Stage, *, seed: int
) -> Callable[[Any, Any, Batch, Any], dict[str, Array]]:
    """The jitted (params, frozen, batch, batch number) -> sums: "loss" and "examples".

    Noise and timesteps come from (seed, "validate", batch number, row): the same at every
    evaluation, so that curves are comparable. Rows whose `valid` is False count for nothing; a
    stage whose examples are compared is told of them.
    """

    def step(params: Any, frozen: Any, batch: Batch, number: Any) -> dict[str, Array]:
        valid = batch["valid"].astype(jnp.float32)
        fields = {k: v for k, v in batch.items() if stage.whole_batch or k != "valid"}
        keys = rng.example_keys(jax.random.key(seed), "validate", number, valid.shape[0])
        losses, _ = stage.loss(params, frozen, fields, keys)
        return {"loss": jnp.sum(losses * valid), "examples": jnp.sum(valid)}

    return jax.jit(step)


def reduce_diagnostics(diagnostics: Diagnostics) -> Metrics:
    """Weighted means; NaN where no example of the batch counts (written as null, not as zero)."""
    return {
        name: jnp.sum(values * weights) / jnp.sum(weights)
        for name, (values, weights) in diagnostics.items()
    }
