"""The two conventions for pictures: uint8 RGB outside, float32 in [-1, 1] inside models."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_float(images: UInt8[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """0..255 -> [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: Float[Array, "*b h w 3"]) -> UInt8[Array, "*b h w 3"]:
    """[-1, 1] -> 0..255, rounded to the nearest; values outside are clipped."""
    return jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
