"""The pre-norm residual transformer that CLIP's towers, the text encoders and the prior share.

    h = x + out(attention(q, k, v)),  q, k, v = qkv(norm_1(x))
    y = h + mlp_out(act(mlp_in(norm_2(h))))

Norms have float32 statistics and eps 1e-5; `act` is the exact GELU or CLIP's x sigmoid(1.702 x).
`scan_layers` compiles one block and runs it in a `lax.scan` over stacked parameters: compile time
and code size no longer grow with depth, weights are gathered layer by layer, and the backward pass
is faster on CPU. `remat` recomputes activations in the backward pass. Neither changes a result;
`params.stack_layers` and `params.unstack_layers` turn one parameter layout into the other.
The kernel of qkv is [W, 3, W], so that a split along its last axis keeps whole heads of all three.

Initialisation (CLIP's `initialize_parameters`, which is GPT-2's scaled by width), W the width and
L the number of layers: qkv N(0, 1/W), attention_out and mlp_out N(0, 1/(2 L W)), mlp_in
N(0, 1/(2 W)), biases 0, norm scales 1. The residual outputs shrink with depth so that the stream
keeps its variance.

Sources: Radford et al. 2019 (GPT-2); CLIP, arXiv 2103.00020, section 2.4.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.models.attention import dot_product_attention
from unclip_jax.models.remat import rematerialised

Norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


@jax.custom_jvp
def gelu(x: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """x P(x), P the normal distribution function; the derivative P(x) + x P'(x) is written out.

    Versions of JAX from 0.12 on can't take erf's own derivative inside a `shard_map`.
    """
    return jax.nn.gelu(x, approximate=False)


@gelu.defjvp
def _gelu_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    density = jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return gelu(x), dx * (jax.lax.erfc(-x / math.sqrt(2)) / 2 + x * density)


def quick_gelu(x: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """x sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "quick_gelu": quick_gelu,
}


def causal_mask(length: int) -> Bool[Array, "1 1 t t"]:
    """True where position i (rows) may look at position j (columns): j <= i."""
    return jnp.tril(jnp.ones((1, 1, length, length), bool))


class Block(nn.Module):
    """One residual layer: self-attention, then an MLP, each behind its norm."""

    heads: int
    mlp_dim: int
    residual_std: float
    activation: str = "gelu"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t w"], mask: Bool[Array, "#b #n #t t"] | None
    ) -> Float[Array, "b t w"]:
        batch, length, width = x.shape
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def dense(x: Array, features: int | tuple[int, ...], std: float, name: str) -> Array:
            init = nn.initializers.normal(std)
            layer = nn.DenseGeneral(features, kernel_init=init, name=name, **dtypes)
            return checkpoint_name(layer(x), "dense")

        qkv = dense(Norm(name="norm_1", **dtypes)(x), (3, width), width**-0.5, "qkv")
        q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, self.heads, -1), 2, 0)
        attended = dot_product_attention(q, k, v, mask=mask, implementation=self.attention)
        attended = checkpoint_name(attended.reshape(x.shape), "attention")
        x = x + dense(attended, width, self.residual_std, "attention_out")

        h = Norm(name="norm_2", **dtypes)(x)
        h = ACTIVATIONS[self.activation](dense(h, self.mlp_dim, (2 * width) ** -0.5, "mlp_in"))
        return x + dense(h, width, self.residual_std, "mlp_out")


class Transformer(nn.Module):
    """`layers` blocks, without embeddings before or a norm after them.

    Parameters are {"block_0": ..., "block_1": ...}, or {"blocks": ...} with a leading layer axis
    under `scan_layers`.

    Attributes:
      mlp_dim: hidden size of the MLPs; None means 4 times the width.
      remat: what the backward pass recomputes, a policy of `remat`.
      attention: implementation, see `dot_product_attention`.
    """

    layers: int
    heads: int
    mlp_dim: int | None = None
    activation: str = "gelu"
    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t w"], mask: Bool[Array, "#b #n #t t"] | None = None
    ) -> Float[Array, "b t w"]:
        width = x.shape[-1]
        self._check(width)
        block = partial(
            rematerialised(Block, self.remat, in_scan=self.scan_layers),
            heads=self.heads,
            mlp_dim=self.mlp_dim or 4 * width,
            residual_std=(2 * self.layers * width) ** -0.5,
            activation=self.activation,
            attention=self.attention,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        x = x.astype(self.dtype)
        if not self.scan_layers:
            for i in range(self.layers):
                x = block(name=f"block_{i}")(x, mask)
            return x
        scan = nn.scan(
            lambda module, x, mask: (module(x, mask), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.layers,
        )
        return scan(block(name="blocks"), x, mask)[0]

    def _check(self, width: int) -> None:
        if width % self.heads:
            raise UserError(
                f"transformer width {width} is not a multiple of its {self.heads} heads"
            )
        if self.activation not in ACTIVATIONS:
            hint = did_you_mean(self.activation, ACTIVATIONS)
            raise UserError(f"unknown activation {self.activation!r}{hint}")
