"""What training one example of a stage costs: FLOPs, and the bytes that its backward pass keeps.

Activations are the residuals of `jax.vjp` of the loss under the model's own remat policy: every
array that the forward pass hands to the backward pass and that depends on the batch. It is an upper
bound for what a compiled step keeps: XLA recomputes cheap ones (casts, shifts) inside its fusions.
Copies of weights in the compute dtype are counted apart, since they do not grow with the batch.

TPUs keep arrays in tiles of 8 x 128 numbers, so short sequences, heads of 64 and few channels take
more bytes than they have: sizes are those of arrays filled up to whole tiles.
"""

import dataclasses
import math
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from unclip_jax.core import rng, trees
from unclip_jax.preflight.flops import RULES, Flops, count_flops, flops_of
from unclip_jax.preflight.jaxprs import Marks, body, equations, is_recomputed, walk
from unclip_jax.preflight.work import REDUCTIONS, Operation, operations
from unclip_jax.stages.stage import MEMORY, Stage


@dataclasses.dataclass(frozen=True)
class StageCost:
    """Cost of a stage.

    Attributes:
      parameters: numbers that are trained.
      parameter_bytes: of one copy of them.
      flops: of one example.
      activation_bytes: kept for the backward pass, of one example, at most, in whole tiles.
      weight_copy_bytes: kept for the backward pass whatever the batch, at most.
      block_numbers: results of products and reductions in the largest block that the backward pass
        computes again, of one example, in whole tiles; 0 without such blocks.
      operations: of the forward pass.
    """

    parameters: int
    parameter_bytes: int
    flops: Flops
    activation_bytes: float
    weight_copy_bytes: int
    block_numbers: float
    operations: tuple[Operation, ...]


def stage_cost(stage: Stage, frozen: Any, batch: Any, tile: tuple[int, int] = (1, 1)) -> StageCost:
    """The cost of a stage on a batch; nothing is computed.

    Args:
      frozen, batch: what `stage.loss` takes, arrays or their shapes.
      tile: rows and columns of the device's tiles; the batch should be a multiple of its rows.
    """
    params = jax.eval_shape(stage.init, jax.random.key(0))
    activations, copies = _residual_bytes(stage, params, frozen, batch, tile)
    closed, trained, of_batch = _traced_loss(stage, params, frozen, batch)
    rows = _rows(batch)
    return StageCost(
        parameters=trees.count(params),
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
        flops=flops_of(closed, trained).per(rows),
        activation_bytes=activations / rows,
        weight_copy_bytes=copies,
        block_numbers=_largest_block(closed, tile) / rows,
        operations=tuple(operations(closed, trained, of_batch, rows)),
    )


def _traced_loss(
    stage: Stage, params: Any, frozen: Any, batch: Any
) -> tuple[ClosedJaxpr, Marks, Marks]:
    """The loss as a program, with marks of its arguments: trained; of the batch or its keys."""
    arguments = (params, _with_memory(stage, frozen), batch, _keys(batch))
    closed = jax.make_jaxpr(lambda *given: stage.loss(*given)[0])(*arguments)
    lengths = [len(jax.tree.leaves(argument)) for argument in arguments]
    numbers = [i for i, length in enumerate(lengths) for _ in range(length)]
    return closed, [n == 0 for n in numbers], [n >= 2 for n in numbers]


def _largest_block(closed: ClosedJaxpr, tile: tuple[int, int]) -> int:
    """Numbers in the results of the largest block under remat; elementwise work is fused."""
    blocks = (e for e in equations(closed.jaxpr) if is_recomputed(e))
    return max((_results(block, tile) for block in blocks), default=0)


def _results(block: Any, tile: tuple[int, int]) -> int:
    counted = {*RULES, *REDUCTIONS}
    inside = (e for e in equations(body(block)) if e.primitive.name in counted)
    return sum(_numbers(var.aval.shape, tile) for equation in inside for var in equation.outvars)


def _numbers(shape: tuple[int, ...], tile: tuple[int, int]) -> int:
    """Of an array in whole tiles; vectors are not tiled."""
    if len(shape) < 2:
        return math.prod(shape)
    *outer, rows, columns = shape
    return math.prod(outer) * _up(rows, tile[0]) * _up(columns, tile[1])


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def stage_flops(stage: Stage, frozen: Any, batch: Any) -> Flops:
    """FLOPs of one example of the batch, forward; `.train` is a training step's share."""
    params = jax.eval_shape(stage.init, jax.random.key(0))

    def loss(params: Any, frozen: Any, batch: Any, keys: Any) -> Any:
        return stage.loss(params, frozen, batch, keys)[0]

    frozen = _with_memory(stage, frozen)
    return count_flops(loss, params, frozen, batch, _keys(batch)).per(_rows(batch))


def _residual_bytes(
    stage: Stage, params: Any, frozen: Any, batch: Any, tile: tuple[int, int]
) -> tuple[int, int]:
    """Bytes of residuals that depend on the batch or its random draws, and of all others."""

    def residuals(batch: Any, keys: Any, params: Any, frozen: Any) -> list[Any]:
        _, pullback = jax.vjp(lambda p: stage.loss(p, frozen, batch, keys)[0], params)
        return jax.tree.leaves(pullback)

    frozen = _with_memory(stage, frozen)
    jaxpr = jax.make_jaxpr(residuals)(batch, _keys(batch), params, frozen).jaxpr
    of_batch = len(jax.tree.leaves(batch)) + 1
    marks = walk(jaxpr, [i < of_batch for i in range(len(jaxpr.invars))], lambda *_: None)
    arguments = set(jaxpr.invars)
    kept = {
        var: marked
        for var, marked in zip(jaxpr.outvars, marks, strict=True)
        if not isinstance(var, Literal) and var not in arguments
    }
    sizes = {var: _numbers(var.aval.shape, tile) * var.aval.dtype.itemsize for var in kept}
    activations = sum(size for var, size in sizes.items() if kept[var])
    return activations, sum(sizes.values()) - activations


def _with_memory(stage: Stage, frozen: Any) -> Any:
    """What the loss finds among `frozen` in a training step."""
    return frozen if stage.memory is None else frozen | {MEMORY: jax.eval_shape(stage.memory.init)}


def _keys(batch: Any) -> Any:
    return jax.eval_shape(lambda: rng.example_keys(jax.random.key(0), "train", 0, _rows(batch)))


def _rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
