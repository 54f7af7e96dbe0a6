"""ADM's residual block: two normalised convolutions, with the time embedding between them.

    h = conv1(resample(silu(norm1(x))))
    h = norm2(h) * (1 + scale) + shift        [scale, shift] = W e      (scale_shift)
    h = norm2(h + W e)                                                  (additive)
    y = skip(resample(x)) + conv2(dropout(silu(h)))

`resample` halves (2x2 mean) or doubles (nearest) the map, or leaves it. The embedding e comes in
already activated, since SiLU of it is the same for every block. conv2 starts at zero, so a block
starts as its skip path; the other kernels are lecun-normal, biases zero. The skip is the identity,
or a 1x1 convolution where the number of channels changes.

Source: Dhariwal and Nichol 2021 (arXiv 2105.05233) section 3; Perez et al. 2017 (FiLM).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Key

from unclip_jax.core.rng import fold_in_name
from unclip_jax.models.dropout import dropout
from unclip_jax.models.normalization import GroupNorm
from unclip_jax.models.resize import downsample, upsample

LECUN: Initializer = nn.initializers.lecun_normal()
RESAMPLERS = {"none": lambda x: x, "down": downsample, "up": upsample}


class ResBlock(nn.Module):
    """A residual block [B, H, W, C] -> [B, H', W', features].

    Attributes:
      features: channels of the result.
      resample: "none", "down" (H' = H/2) or "up" (H' = 2H).
      scale_shift: the embedding scales and shifts norm2; otherwise it is added before it.
      dropout: rate at which values before conv2 are dropped while training.
      groups, eps, formulation: of the group norms (see normalization.py).
    """

    features: int
    resample: str = "none"
    scale_shift: bool = True
    dropout: float = 0.0
    groups: int = 32
    eps: float = 1e-5
    formulation: str = "auto"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        embedding: Float[Array, "b e"],
        dropout_keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h2 w2 features"]:
        """Applies the block; `embedding` is the activated time embedding.

        `dropout_keys` holds one key per example and switches dropout on; each block derives its
        own from them by its path.
        """
        resample = RESAMPLERS[self.resample]
        h = resample(jax.nn.silu(self._norm("norm1")(x)))
        h = self._conv(3, "conv1")(h)
        time = nn.Dense(
            (2 if self.scale_shift else 1) * self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="time_proj",
        )(embedding)
        if self.scale_shift:
            scale, shift = jnp.split(time, 2, axis=-1)
            h = self._norm("norm2")(h, modulation=(scale, shift))
        else:
            h = self._norm("norm2")(h + time[:, None, None, :])
        h = jax.nn.silu(h)
        if dropout_keys is not None and self.dropout:
            h = dropout(h, self.dropout, fold_in_name(dropout_keys, "/".join(self.path)))
        h = self._conv(3, "conv2", nn.initializers.zeros)(h)
        x = resample(x)
        if x.shape[-1] != self.features:
            x = self._conv(1, "skip")(x)
        return x + h

    def _norm(self, name: str) -> GroupNorm:
        return GroupNorm(
            self.groups, self.eps, self.formulation, self.dtype, self.param_dtype, name=name
        )

    def _conv(self, size: int, name: str, kernel_init: Initializer = LECUN):
        conv = nn.Conv(
            self.features,
            (size, size),
            kernel_init=kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
        return lambda x: checkpoint_name(conv(x), "conv")
