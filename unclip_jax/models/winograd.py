"""3x3 convolutions with fewer multiplications, for drawing on CPUs.

Winograd's F(2x2, 3x3) takes 16 multiplications for a tile of 2x2 results where the sum over the
kernel takes 36. With the kernel g, the 4x4 values d that a tile sees, and * elementwise,

    Y = A [(G g G') * (B d B')] A'        A: 2x4,  G: 4x3,  B: 4x4, entries 0, 1, -1 and 1/2

summed over input channels, so that each of the 16 places is a matrix product of all tiles with the
channels. G g G' does not depend on what is drawn: in a loop over steps, XLA takes it out.

XLA's own convolutions are as fast as matrix products on a CPU, so multiplications are what is left
to save. Tiles and products take four times the memory of the map. Training keeps XLA's own.

Source: Lavin and Gray 2015 (arXiv 1509.09308), section 4.1.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Of an example, so that its picture does not depend on others. A layer takes 0.2 to 1 s more to
# compile: with fewer, it would take a thousand steps to win that back.
_LEAST_FLOPS = 2**25


@contextlib.contextmanager
def fewer_multiplications() -> Iterator[None]:
    """Inside, large float32 convolutions of traced networks take Winograd's way on CPUs."""

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if not isinstance(layer, nn.Conv) or context.method_name != "__call__":
            return call(*args, **kwargs)
        (x,) = args
        params = layer.variables.get("params", {})
        if "kernel" not in params or not _pays(layer, x, params["kernel"]):
            return call(x)
        kernel = params["kernel"].astype(x.dtype)
        y = lax.platform_dependent(x, kernel, cpu=_transform_and_convolve, default=plain_convolve)
        return y + params["bias"].astype(x.dtype)[None, None, None] if layer.use_bias else y

    with nn.intercept_methods(intercept):
        yield


def transform_kernel(kernel: Float[Array, "3 3 c o"]) -> Float[Array, "4 4 c o"]:
    """G g G'."""
    rows = jnp.stack(_kernel_side(kernel))
    return jnp.stack(_kernel_side(jnp.moveaxis(rows, 1, 0)), axis=1)


def convolve(
    x: Float[Array, "b h w c"], transformed: Float[Array, "4 4 c o"]
) -> Float[Array, "b h w o"]:
    """The convolution of a map of even sides, zeros around it, with a transformed kernel."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # One side after the other: XLA compiles this in half the time that both at once take.
    d = jnp.stack(_input_side(_taps(x, axis=1)))
    d = jnp.stack(_input_side(_taps(d, axis=3)), axis=1)
    m = jnp.einsum("ijbhwc,ijco->ijbhwo", d, transformed)
    rows = jnp.stack(_output_side(m), axis=3)  # [4, b, h/2, 2, w/2, o]
    y = jnp.stack(_output_side(rows), axis=4)  # [b, h/2, 2, w/2, 2, o]
    b, h, _, w, _, o = y.shape
    return y.reshape(b, 2 * h, 2 * w, o)


def plain_convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h w o"]:
    """The same by XLA's own convolution."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _transform_and_convolve(x: Array, kernel: Array) -> Array:
    return convolve(x, transform_kernel(kernel))


def _pays(layer: nn.Conv, x: Array, kernel: Array) -> bool:
    plain = nn.Conv(layer.features, (3, 3), use_bias=layer.use_bias)
    alike = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count")
    if kernel.shape[:2] != (3, 3) or any(getattr(layer, a) != getattr(plain, a) for a in alike):
        return False
    b, h, w, c = x.shape
    if not isinstance(b, int):  # a program for export, of any batch
        return False
    if h % 2 or w % 2 or x.dtype != jnp.float32 or layer.dtype not in (None, jnp.float32):
        return False
    return 2 * h * w * 9 * c * layer.features >= _LEAST_FLOPS


def _taps(x: Array, axis: int) -> list[Array]:
    """Of every tile, its four values along a side, from its first to its last."""
    end = x.shape[axis] - 3
    return [lax.slice_in_dim(x, i, i + end, 2, axis) for i in range(4)]


def _kernel_side(g: Sequence[Array] | Array) -> list[Array]:
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _input_side(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_side(m: Sequence[Array] | Array) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
