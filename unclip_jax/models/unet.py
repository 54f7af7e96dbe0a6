"""The ADM U-Net: residual blocks on a ladder of resolutions, attention where maps are small.

Level i works at 1/2^i of the input with channels * multipliers[i] channels. Going down, every level
has `depth` residual blocks and, but for the last, one more that halves the map; going up, depth + 1
blocks, each fed the matching map of the way down (concatenated), and one that doubles the map.
Between them: block, attention, block. The result of every block going down is kept as a skip.

Where attention sits is given by downsampling factor, not by the size of the map, so that parameters
do not depend on the image size: the paper's 64 px decoder, which attends at 32, 16 and 8 px, has
attention_factors=(2, 4, 8). Factors count from the image, a space-to-depth stem included.

Parameter names: conv_in, time_embedding, down_<level>_res_<j>, down_<level>_attention_<j>,
down_<level>_resample, mid_res_0, mid_attention, mid_res_1, up_<level>_res_<j>,
up_<level>_attention_<j>, up_<level>_resample, norm_out, conv_out. A level has the same number going
down and up (diffusers counts up_blocks from the smallest map). conv_out starts at zero.

Source: Dhariwal and Nichol 2021 (arXiv 2105.05233); Ho et al. 2020 (2006.11239), appendix B.
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
from unclip_jax.models.resize import depth_to_space, space_to_depth
from unclip_jax.models.unet_blocks import Block, block_makers, check_attention_factors

LECUN: Initializer = nn.initializers.lecun_normal()


class UNet(nn.Module):
    """Noisy images and a timestep in, a prediction of the same size out.

    Attributes:
      out_channels: channels of the prediction; 6 for images with a learned variance.
      channels: channels of level 0 before its multiplier; the time embedding has 4 times as many.
      multipliers: channel multiplier of each level.
      depth: residual blocks per level going down (one more going up).
      attention_factors: downsampling factors whose levels have attention after each block.
      mid_attention: whether the middle has attention.
      head_dim: channels per attention head.
      scale_shift: how the embedding enters residual blocks (see resblock.py).
      dropout: rate inside residual blocks.
      space_to_depth: side of the blocks of pixels that are folded into channels at the stem.
      norm_groups, norm_eps, norm_formulation: of every group norm (see normalization.py).
      attention: implementation of attention, "auto", "xla" or "cudnn".
      remat: what blocks recompute in the backward pass (see remat.py).
    """

    out_channels: int
    channels: int
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    depth: int = 3
    attention_factors: tuple[int, ...] = (2, 4, 8)
    mid_attention: bool = True
    head_dim: int = 64
    scale_shift: bool = True
    dropout: float = 0.0
    space_to_depth: int = 1
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
        return self.space_to_depth * 2 ** (len(self.multipliers) - 1)

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
        """Applies the network; the result has the dtype of x.

        Args:
          x: images in [-1, 1] plus noise, and whatever is concatenated to them.
          t: timesteps.
          embedding: conditioning of width `embedding_width`, added to the time embedding.
          context: tokens for the attention layers; `context_mask` is True for real ones.
          dropout_keys: one key per example; None switches dropout off.

        Raises:
          UserError: if the image size is not divisible by `down_factor`, or attention is wanted at
            a factor that no level has.
        """
        check_attention_factors(self.attention_factors, self._factors)
        self._check_size(x)
        time = TimeEmbedding(
            self.channels, self.embedding_width, name="time_embedding", **self._dtypes()
        )(t)
        if embedding is not None:
            time = time + embedding.astype(time.dtype)
        res, attend = block_makers(self, jax.nn.silu(time), context, context_mask, dropout_keys)

        h = space_to_depth(x, self.space_to_depth)
        h = self._conv("conv_in", self.channels * self.multipliers[0])(h)
        h, skips = self._down(h, res, attend)
        h = res("mid_res_0", h)
        h = attend("mid_attention", h) if self.mid_attention else h
        h = res("mid_res_1", h)
        h = self._up(h, skips, res, attend)

        h = jax.nn.silu(self._norm("norm_out")(h))
        out_features = self.out_channels * self.space_to_depth**2
        h = self._conv("conv_out", out_features, nn.initializers.zeros)(h)
        return depth_to_space(h, self.space_to_depth).astype(x.dtype)

    def _down(self, h: Array, res: Block, attend: Block) -> tuple[Array, list[Array]]:
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            for j in range(self.depth):
                h = res(f"down_{level}_res_{j}", h, multiplier * self.channels)
                if self._attends(level):
                    h = attend(f"down_{level}_attention_{j}", h)
                skips.append(h)
            if level < len(self.multipliers) - 1:
                h = res(f"down_{level}_resample", h, resample="down")
                skips.append(h)
        return h, skips

    def _up(self, h: Array, skips: list[Array], res: Block, attend: Block) -> Array:
        for level in reversed(range(len(self.multipliers))):
            for j in range(self.depth + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = res(f"up_{level}_res_{j}", h, self.multipliers[level] * self.channels)
                if self._attends(level):
                    h = attend(f"up_{level}_attention_{j}", h)
            if level > 0:
                h = res(f"up_{level}_resample", h, resample="up")
        return h

    def _attends(self, level: int) -> bool:
        return self._factors[level] in self.attention_factors

    @property
    def _factors(self) -> list[int]:
        return [self.space_to_depth * 2**level for level in range(len(self.multipliers))]

    def _conv(self, name: str, features: int, kernel_init: Initializer = LECUN) -> nn.Conv:
        return nn.Conv(features, (3, 3), kernel_init=kernel_init, name=name, **self._dtypes())

    def _norm(self, name: str) -> GroupNorm:
        return GroupNorm(
            self.norm_groups, self.norm_eps, self.norm_formulation, name=name, **self._dtypes()
        )

    def _dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def _check_size(self, x: Array) -> None:
        height, width = x.shape[1:3]
        if height % self.down_factor or width % self.down_factor:
            raise UserError(
                f"U-Net: images of {height} x {width} px cannot be halved down to the last of "
                f"{len(self.multipliers)} levels; use sizes divisible by {self.down_factor}"
            )
