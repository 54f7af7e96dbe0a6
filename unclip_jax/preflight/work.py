"""What a chip has to do in a stage's forward pass, operation by operation, from its traced loss.

Only what touches memory is listed: matrix products, convolutions, and reductions (norms, softmax).
Elementwise work is taken as fused into them. What is said of a product:

    FLOPs of one example; bytes that grow with the batch, of one example; bytes of weights;
    its contracted and produced channels, which the chip's matrix unit fills up to its own width
"""

import dataclasses
import math
from typing import Any

from jax.extend.core import ClosedJaxpr

from unclip_jax.preflight.flops import RULES
from unclip_jax.preflight.jaxprs import Marks, body, equations, is_recomputed, walk

REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "argmax")
_FOLDED = 32  # compilers fold the taps of a convolution of fewer channels into its contraction


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kind of work.

    Attributes:
      times: how often it runs in a forward pass.
      trained: whether it depends on trained parameters, so that the backward pass returns to it.
      recomputed: whether a block that the backward pass computes again holds it.
      flops: of one example.
      rows_bytes: read and written, of one example.
      fixed_bytes: read whatever the batch.
      contracted, produced: channels of a product, 0 of a reduction.
    """

    times: int
    trained: bool
    recomputed: bool
    flops: float
    rows_bytes: float
    fixed_bytes: float
    contracted: int = 0
    produced: int = 0

    def padded(self, unit: int) -> float:
        """FLOPs of one example with channels rounded up to a matrix unit's width."""
        if not self.contracted:
            return self.flops
        waste = 1.0
        for channels in (self.contracted, self.produced):
            waste *= math.ceil(channels / unit) * unit / channels
        return self.flops * waste


def operations(closed: ClosedJaxpr, trained: Marks, of_batch: Marks, rows: int) -> list[Operation]:
    """The operations of a traced loss.

    Args:
      closed: from `jax.make_jaxpr`, of a batch of `rows` examples.
      trained, of_batch: marks of its arguments: trained parameters; the batch and its keys.
    """
    again = {
        id(inner)
        for equation in equations(closed.jaxpr)
        if is_recomputed(equation)
        for inner in equations(body(equation))
    }
    found = []
    # Two walks visit the same equations in the same order.
    for (equation, weights, times), (_, batch, _) in zip(
        _visited(closed, trained), _visited(closed, of_batch), strict=True
    ):
        if equation.primitive.name in (*RULES, *REDUCTIONS):
            recomputed = id(equation) in again
            found.append(_operation(equation, weights, batch, times, recomputed, rows))
    return found


def _visited(closed: ClosedJaxpr, marks: Marks) -> list[tuple[Any, Marks, int]]:
    seen: list[tuple[Any, Marks, int]] = []
    walk(closed.jaxpr, marks, lambda *visit: seen.append(visit))
    return seen


def _operation(
    equation: Any, weights: Marks, batch: Marks, times: int, recomputed: bool, rows: int
) -> Operation:
    rule = RULES.get(equation.primitive.name)
    moved = [_bytes(v) for v in equation.invars]
    grows = sum(size for size, mark in zip(moved, batch, strict=True) if mark)
    fixed = sum(size for size, mark in zip(moved, batch, strict=True) if not mark)
    written = sum(_bytes(v) for v in equation.outvars) if any(batch) else 0
    contracted, produced = _channels(equation)
    return Operation(
        times=times,
        trained=any(weights),
        recomputed=recomputed,
        flops=(rule(equation) if rule else 0.0) / rows,
        rows_bytes=(grows + written) / rows,
        fixed_bytes=fixed,
        contracted=contracted,
        produced=produced,
    )


def _channels(equation: Any) -> tuple[int, int]:
    """Contracted and produced channels of a product; (0, 0) of anything else."""
    if equation.primitive.name == "dot_general":
        (left, right), (_, batched) = equation.params["dimension_numbers"]
        lhs, rhs = (v.aval.shape for v in equation.invars)
        free = [size for i, size in enumerate(rhs) if i not in (*right, *batched)]
        return math.prod(lhs[i] for i in left), math.prod(free)
    if equation.primitive.name == "conv_general_dilated":
        spec = equation.params["dimension_numbers"].rhs_spec
        kernel = equation.invars[1].aval.shape
        produced, inputs, taps = kernel[spec[0]], kernel[spec[1]], [kernel[i] for i in spec[2:]]
        return inputs * (math.prod(taps) if inputs < _FOLDED else 1), produced
    return 0, 0


def _bytes(value: Any) -> int:
    return value.aval.size * value.aval.dtype.itemsize
