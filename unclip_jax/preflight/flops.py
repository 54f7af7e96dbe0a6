"""FLOPs of a function, counted from its traced program: no second description of any network.

Rules, as in published MFU figures:
  - a multiply-add is 2 FLOPs; matrix products and convolutions count, nothing else does
  - a convolution counts all taps of its kernel at every output, those in the padding included
  - training costs 3 times the forward pass of whatever depends on trained parameters (forward,
    gradient of the inputs, gradient of the weights) and once that of what does not (a frozen CLIP)
  - what is recomputed to save memory does not count: MFU asks for useful work
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from unclip_jax.preflight.jaxprs import Marks, walk


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of one forward pass: of products with trained operands, and of all others."""

    trained: float = 0.0
    frozen: float = 0.0

    @property
    def forward(self) -> float:
        """One forward pass."""
        return self.trained + self.frozen

    @property
    def train(self) -> float:
        """One training step: forward and backward."""
        return 3 * self.trained + self.frozen

    def per(self, count: int) -> "Flops":
        """The share of one of `count` examples."""
        return Flops(self.trained / count, self.frozen / count)


def count_flops(function: Callable[..., Any], params: Any, *arguments: Any) -> Flops:
    """FLOPs of one call `function(params, *arguments)`; nothing is computed.

    Args:
      params: the trained parameters; they and the arguments are arrays or their shapes.
    """
    closed = jax.make_jaxpr(function)(params, *arguments)
    trained = len(jax.tree.leaves(params))
    return flops_of(closed, [i < trained for i in range(len(closed.jaxpr.invars))])


def flops_of(closed: ClosedJaxpr, trained: Marks) -> Flops:
    """FLOPs of a traced function, whose trained arguments are marked."""
    sums = {True: 0.0, False: 0.0}

    def visit(equation: Any, operands: Marks, times: int) -> None:
        rule = RULES.get(equation.primitive.name)
        if rule:
            sums[any(operands)] += times * rule(equation)

    walk(closed.jaxpr, trained, visit)
    return Flops(trained=sums[True], frozen=sums[False])


def _dot_general(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(lhs[i] for i in contracted)


def _conv_general_dilated(equation: Any) -> float:
    kernel = equation.invars[1].aval.shape
    out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * math.prod(kernel) // out_features


def _fused_attention(equation: Any) -> float:
    """cuDNN's softmax(q k') v of [B, T, N, H] and [B, S, N, H]: two products."""
    query, key = (v.aval.shape for v in equation.invars[:2])
    return 4 * math.prod(query) * key[1]


RULES: dict[str, Callable[[Any], float]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _conv_general_dilated,
    "dot_product_attention_fwd_wrapper": _fused_attention,
    "dot_product_attention_fwd": _fused_attention,
}
