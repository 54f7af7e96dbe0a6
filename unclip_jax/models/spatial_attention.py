"""Self-attention over the positions of a feature map, with context tokens in the same softmax.

    q, k, v = W norm(x);  k_c, v_c = W_c context
    y = x + W_o softmax(q [k_c; k]' / sqrt(d)) [v_c; v]

The keys and values of the context are put before those of the positions, so that one softmax weighs
both: there is no separate cross-attention layer. A masked context leaves plain self-attention.
W_o starts at zero (the block starts as the identity); the other layers are lecun-normal; all biases
are zero.

Source: Nichol et al. 2021 (GLIDE, arXiv 2112.10741) section 2.1; Dhariwal and Nichol 2021.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from unclip_jax.errors import UserError
from unclip_jax.models.attention import dot_product_attention
from unclip_jax.models.normalization import GroupNorm


class SpatialAttention(nn.Module):
    """Residual attention among the H*W positions of x and S context tokens.

    Attributes:
      head_dim: channels per head; divides the channels of x.
      groups, eps, formulation: of the group norm (see normalization.py).
      attention: implementation of `dot_product_attention`.
    """

    head_dim: int = 64
    groups: int = 32
    eps: float = 1e-5
    formulation: str = "auto"
    attention: str = "auto"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        context: Float[Array, "b s width"] | None = None,
        context_mask: Bool[Array, "b s"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Attends; `context_mask` is True for real tokens, None for all of them.

        Raises:
          UserError: if head_dim does not divide the channels.
        """
        batch, height, width, channels = x.shape
        if channels % self.head_dim:
            raise UserError(
                f"attention heads of {self.head_dim} channels do not divide {channels} channels; "
                "choose head_dim or channels accordingly"
            )
        project = self._projector(channels)
        h = GroupNorm(
            self.groups, self.eps, self.formulation, self.dtype, self.param_dtype, name="norm"
        )(x).reshape(batch, height * width, channels)
        query, key, value = (project(name, h) for name in ("query", "key", "value"))
        mask = None
        if context is not None:
            key = jnp.concatenate([project("context_key", context), key], axis=1)
            value = jnp.concatenate([project("context_value", context), value], axis=1)
            if context_mask is not None:
                mask = jnp.pad(context_mask, ((0, 0), (0, height * width)), constant_values=True)
                mask = mask[:, None, None, :]
        h = dot_product_attention(query, key, value, mask=mask, implementation=self.attention)
        h = checkpoint_name(h, "attention")
        out = nn.Dense(
            channels,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.zeros,
            name="out",
        )(h.reshape(batch, height * width, channels))
        return x + out.reshape(x.shape)

    def _projector(self, channels: int):
        """A function (name, tokens [B, S, W]) -> heads [B, S, C / head_dim, head_dim]."""

        def project(name: str, tokens: Array) -> Array:
            dense = nn.Dense(channels, dtype=self.dtype, param_dtype=self.param_dtype, name=name)
            heads = dense(tokens).reshape(*tokens.shape[:2], -1, self.head_dim)
            return checkpoint_name(heads, "attention")

        return project
