"""Imagen's Efficient U-Net: most blocks at low resolution, few at high, for upsamplers.

Three changes to the ADM U-Net (unet.py) make it several times cheaper for the same parameters:
- every level changes resolution first on the way down (a strided convolution before its blocks)
  and last on the way up (a convolution after them), so that no block works at full resolution;
- levels have their own depths, with more blocks where maps are small;
- one skip per level instead of one per block, scaled by 1 / sqrt(2) before it is concatenated,
  which the authors found to speed up convergence.

Level i works at 1/2^(i+1) of the input with channels * multipliers[i] channels. Upsampling repeats
pixels before the convolution; transposed convolutions are slow in XLA and leave checkerboards.

Parameter names: conv_in, time_embedding, down_<level>_conv, down_<level>_res_<j>,
down_<level>_attention, up_<level>_res_<j>, up_<level>_attention, up_<level>_conv, norm_out,
conv_out. conv_out starts at zero, other kernels are lecun-normal, biases zero.

Source: Saharia et al. 2022 (Imagen, arXiv 2205.11487), section 2.3 and appendix B.1.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int, Key

from unclip_jax.errors import UserError
from unclip_jax.models.embeddings import TimeEmbedding
from unclip_jax.models.normalization import GroupNorm
from unclip_jax.models.resize import upsample
from unclip_jax.models.unet_blocks import Block, block_makers, check_attention_factors

LECUN: Initializer = nn.initializers.lecun_normal()
SKIP_SCALE = 2**-0.5


class EfficientUNet(nn.Module):
    """A drop-in for `UNet` with the same call; attributes of the same name mean the same.

    Attributes:
      depths: residual blocks of each level, on either way.
      attention_factors: downsampling factors whose levels end in one attention block. The default,
        none, keeps the network convolutional.
    """

    out_channels: int
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    depths: tuple[int, ...] = (2, 4, 8, 8)
    attention_factors: tuple[int, ...] = ()
    head_dim: int = 64
    scale_shift: bool = True
    dropout: float = 0.0
    norm_groups: int = 32
    norm_eps: float = 1e-5
    norm_formulation: str = "auto"
    attention: str = "auto"
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @property
    def embedding_width(self) -> int:
        """Width of the time embedding, to which conditioning is added."""
        return 4 * self.channels

    @property
    def down_factor(self) -> int:
        """What the height and width of an image must be divisible by."""
        return 2 ** len(self.multipliers)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Int[Array, " b"],
        *,
        embedding: Float[Array, "b e"] | None = None,
        context: Float[Array, "b s width"] | None = None,
        context_mask: Bool[Array, "b s"] | None = None,
        dropout_keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w out"]:
        """Applies the network; arguments and errors are those of `UNet`."""
        self._check(x)
        time = TimeEmbedding(
            self.channels, self.embedding_width, name="time_embedding", **self._dtypes()
        )(t)
        if embedding is not None:
            time = time + embedding.astype(time.dtype)
        blocks = block_makers(self, jax.nn.silu(time), context, context_mask, dropout_keys)

        stem = self._conv("conv_in", self.channels)(x)
        h = self._up(*self._down(stem, *blocks), *blocks)
        h = jnp.concatenate([h, stem * SKIP_SCALE], axis=-1)
        h = GroupNorm(
            self.norm_groups,
            self.norm_eps,
            self.norm_formulation,
            name="norm_out",
            **self._dtypes(),
        )(h)
        h = self._conv("conv_out", self.out_channels, kernel_init=nn.initializers.zeros)(
            jax.nn.silu(h)
        )
        return h.astype(x.dtype)

    def _down(self, h: Array, res: Block, attend: Block) -> tuple[Array, list[Array]]:
        skips = []
        for level, multiplier in enumerate(self.multipliers):
            h = self._conv(f"down_{level}_conv", multiplier * self.channels, stride=2)(h)
            for j in range(self.depths[level]):
                h = res(f"down_{level}_res_{j}", h)
            if self._attends(level):
                h = attend(f"down_{level}_attention", h)
            skips.append(h)
        return h, skips

    def _up(self, h: Array, skips: list[Array], res: Block, attend: Block) -> Array:
        for level in reversed(range(len(self.multipliers))):
            h = jnp.concatenate([h, skips[level] * SKIP_SCALE], axis=-1)
            for j in range(self.depths[level]):
                h = res(f"up_{level}_res_{j}", h, self.multipliers[level] * self.channels)
            if self._attends(level):
                h = attend(f"up_{level}_attention", h)
            features = self.multipliers[max(level - 1, 0)] * self.channels
            h = self._conv(f"up_{level}_conv", features)(upsample(h))
        return h

    def _attends(self, level: int) -> bool:
        return self._factors[level] in self.attention_factors

    @property
    def _factors(self) -> list[int]:
        return [2 ** (level + 1) for level in range(len(self.multipliers))]

    def _conv(
        self, name: str, features: int, stride: int = 1, kernel_init: Initializer = LECUN
    ) -> nn.Conv:
        return nn.Conv(
            features,
            (3, 3),
            strides=stride,
            kernel_init=kernel_init,
            name=name,
            **self._dtypes(),
        )

    def _dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def _check(self, x: Array) -> None:
        if len(self.depths) != len(self.multipliers):
            raise UserError(
                f"efficient U-Net: {len(self.depths)} depths for {len(self.multipliers)} "
                "multipliers; give one depth per level"
            )
        check_attention_factors(self.attention_factors, self._factors)
        height, width = x.shape[1:3]
        if height % self.down_factor or width % self.down_factor:
            raise UserError(
                f"efficient U-Net: images of {height} x {width} px cannot be halved "
                f"{len(self.multipliers)} times; use sizes divisible by {self.down_factor}"
            )
