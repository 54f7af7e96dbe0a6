"""Keeping a predicted x_0 in the range of data, as guidance and early steps push it out.

Static: clip to [-limit, limit]; 1 for images, 10 (karlo) or 5 (diffusers) for whitened embeddings.
Dynamic (Saharia et al. 2022, Imagen, section 2.3): with s the p-th quantile of |x_0| of an example,
at least `limit`, clip to [-s, s] and scale by limit / s, so that saturated values move inwards.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from unclip_jax.diffusion.process import per_example


@dataclass(frozen=True)
class StaticThresholding:
    """Clip x_0 to [-limit, limit]."""

    limit: float = 1.0

    def __call__(self, x0: Float[Array, "b *data"]) -> Float[Array, "b *data"]:
        return jnp.clip(x0, -self.limit, self.limit)


@dataclass(frozen=True)
class DynamicThresholding:
    """Clip each example at a quantile of its own values, and scale back to [-limit, limit]."""

    quantile: float = 0.995
    limit: float = 1.0

    def __call__(self, x0: Float[Array, "b *data"]) -> Float[Array, "b *data"]:
        sizes = jnp.abs(x0).reshape(x0.shape[0], -1)
        s = jnp.maximum(jnp.quantile(sizes, self.quantile, axis=1), self.limit)
        s = per_example(s, x0)
        return jnp.clip(x0, -s, s) * (self.limit / s)


Thresholding = StaticThresholding | DynamicThresholding
