"""Gradients of a batch's mean loss, all at once or part after part.

    grad of 1/B sum_i l_i  =  sum over parts p of  grad of 1/B sum_{i in p} l_i

so parts of any size add up to the large batch exactly, up to rounding. Two things would go wrong if
this were a loop around the compiler's automatic partitioning:

- consecutive rows as one part lie on few devices, and the compiler gives every device all of them.
  Part p takes every `parts`-th row from row p on, so each device finds a share of its own rows.
- every turn would end in an all-reduce. The loop is therefore inside a `shard_map` over the axes
  whose devices hold whole weights: each adds up its own gradients, then one sum over devices
  follows. Axes that split the weights stay automatic: there a turn must reduce what it has, or
  gradients would need the memory that splitting saves.

A stage whose loss compares examples (`Stage.whole_batch`) cannot be taken apart here; its `loss`
computes `parts` chunks of its towers itself, in the same `shard_map`.

Sources: docs/sharding.md for what was measured; Gao et al. 2021 (GradCache, arXiv 2101.06983).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from unclip_jax.stages.stage import Batch, Diagnostics, Stage

PerExample = tuple[Float[Array, " b"], Diagnostics]


def loss_and_gradients(
    stage: Stage,
    params: Any,
    frozen: Any,
    batch: Batch,
    keys: Key[Array, " b"],
    *,
    parts: int,
    axes: tuple[str, ...],
) -> tuple[PerExample, Any]:
    """((losses [B], diagnostics), gradients of the mean loss).

    Args:
      parts: in how many parts the batch is computed.
      axes: of the mesh in use, those that split the batch and leave the weights whole, none of
        one device: the partitioner can't take a sum over that by hand.
    """
    rows = keys.shape[0]

    def objective(params: Any, frozen: Any, batch: Batch, keys: Array) -> tuple[Array, PerExample]:
        losses, diagnostics = stage.loss(params, frozen, batch, keys)
        return jnp.sum(losses) / rows, (losses, diagnostics)

    gradients = jax.grad(objective, has_aux=True)
    if parts == 1:
        grads, per_example = gradients(params, frozen, batch, keys)
        return per_example, grads

    def in_parts(params: Any, frozen: Any, batch: Batch, keys: Array) -> tuple[Any, PerExample]:
        if stage.whole_batch:
            return gradients(params, frozen, batch, keys)
        return _add_up(gradients, params, frozen, batch, keys, parts)

    if not axes:
        grads, per_example = in_parts(params, frozen, batch, keys)
        return per_example, grads

    def on_own_rows(params: Any, frozen: Any, batch: Batch, keys: Array) -> tuple[Any, PerExample]:
        # Marked as different everywhere, so that their gradients are not summed at once.
        params = jax.tree.map(lambda p: jax.lax.pcast(p, axes, to="varying"), params)
        grads, per_example = in_parts(params, frozen, batch, keys)
        return jax.lax.psum(grads, axes), per_example

    whole, split = PartitionSpec(), PartitionSpec(axes)
    grads, per_example = jax.shard_map(
        on_own_rows,
        in_specs=(whole, whole, split, split),
        out_specs=(whole, split),
        axis_names=set(axes),
    )(params, frozen, batch, keys)
    return per_example, grads


def _add_up(
    gradients: Any, params: Any, frozen: Any, batch: Batch, keys: Array, parts: int
) -> tuple[Any, PerExample]:
    kind = jax.random.key_impl(keys)

    def turn(total: Any, part: tuple[Batch, Array]) -> tuple[Any, PerExample]:
        rows, key_data = part
        keys = jax.random.wrap_key_data(key_data, impl=kind)
        grads, per_example = gradients(params, frozen, rows, keys)
        return jax.tree.map(jnp.add, total, grads), per_example

    # As plain numbers: the checker for reused keys takes slices of one array for the same key.
    everything = (batch, jax.random.key_data(keys))
    zeros = jax.tree.map(jnp.zeros_like, params)
    total, per_example = jax.lax.scan(
        turn, zeros, jax.tree.map(lambda x: _split(x, parts), everything)
    )
    return total, jax.tree.map(_join, per_example)


def _split(x: Array, parts: int) -> Array:
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _join(x: Array) -> Array:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
