"""Residual and attention blocks as both U-Nets use them: made, named and applied in one call."""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from unclip_jax.errors import UserError
from unclip_jax.models.remat import rematerialised
from unclip_jax.models.resblock import ResBlock
from unclip_jax.models.spatial_attention import SpatialAttention

Block = Callable[..., Array]


def check_attention_factors(wanted: tuple[int, ...], levels: list[int]) -> None:
    """Raises UserError if attention is wanted at a downsampling factor that no level has."""
    missing = sorted(set(wanted) - set(levels))
    if missing:
        raise UserError(
            f"attention_factors {missing} are not among the downsampling factors of the U-Net's "
            f"levels, {levels}; a factor is image size / map size"
        )


class BlockSettings(Protocol):
    """The attributes of a U-Net that its blocks share (see `UNet`)."""

    head_dim: int
    scale_shift: bool
    dropout: float
    norm_groups: int
    norm_eps: float
    norm_formulation: str
    attention: str
    remat: str
    dtype: jnp.dtype
    param_dtype: jnp.dtype


def block_makers(
    net: BlockSettings,
    time: Float[Array, "b e"],
    context: Float[Array, "b s width"] | None,
    context_mask: Bool[Array, "b s"] | None,
    dropout_keys: Key[Array, " b"] | None,
) -> tuple[Block, Block]:
    """Two functions for use inside a compact method; each makes a submodule and applies it.

    Returns:
      res(name, h, features=channels of h, resample="none") -> h, a `ResBlock`;
      attend(name, h) -> h, a `SpatialAttention`.
    """
    shared = {
        "groups": net.norm_groups,
        "eps": net.norm_eps,
        "formulation": net.norm_formulation,
        "dtype": net.dtype,
        "param_dtype": net.param_dtype,
    }
    res_block = rematerialised(ResBlock, net.remat)
    attention_block = rematerialised(SpatialAttention, net.remat)

    def res(name: str, h: Array, features: int | None = None, resample: str = "none") -> Array:
        block = res_block(
            features=features or h.shape[-1],
            resample=resample,
            scale_shift=net.scale_shift,
            dropout=net.dropout,
            name=name,
            **shared,
        )
        return block(h, time, dropout_keys)

    def attend(name: str, h: Array) -> Array:
        block = attention_block(head_dim=net.head_dim, attention=net.attention, name=name, **shared)
        return block(h, context, context_mask)

    return res, attend
