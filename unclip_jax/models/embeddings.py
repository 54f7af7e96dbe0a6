"""Timesteps as vectors: sinusoids of geometrically spaced frequencies, then a small MLP.

    embedding(t) = [cos(t w_0) .. cos(t w_{h-1}), sin(t w_0) .. sin(t w_{h-1})]
    w_i = max_period ** (-i / h),   h = dim / 2

The order (cosines first) and the divisor h (not h - 1) are those of ADM, GLIDE and karlo; diffusers
calls them flip_sin_to_cos=True and freq_shift=0.

Source: Vaswani et al. 2017 (arXiv 1706.03762) section 3.5; Dhariwal and Nichol 2021 (2105.05233).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num


def timestep_embedding(
    t: Num[Array, " b"], dim: int, max_period: float = 10000.0
) -> Float[Array, "b dim"]:
    """Sinusoidal features of timesteps, float32, in [-1, 1].

    Args:
      t: timesteps, whole or fractional; 0..1000 is the range max_period is made for.
      dim: width of the result, even.
      max_period: 2 pi times this is about the longest wavelength, in steps.
    """
    if dim % 2:
        raise ValueError(f"timestep_embedding needs an even dim, got {dim}")
    half = dim // 2
    frequencies = max_period ** (-np.arange(half, dtype=np.float64) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies.astype(np.float32)[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Sinusoids -> Dense -> SiLU -> Dense. Both layers are lecun-normal with zero biases.

    Attributes:
      sinusoid_dim: width of the sinusoidal features.
      width: width of the hidden layer and of the result.
    """

    sinusoid_dim: int
    width: int
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, t: Num[Array, " b"]) -> Float[Array, "b width"]:
        """Embeds timesteps [B] as [B, width]."""
        dense = lambda name: nn.Dense(  # noqa: E731
            self.width, dtype=self.dtype, param_dtype=self.param_dtype, name=name
        )
        h = dense("linear_1")(timestep_embedding(t, self.sinusoid_dim))
        return dense("linear_2")(jax.nn.silu(h))
