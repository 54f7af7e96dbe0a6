"""Changes of resolution without parameters: pooling, repeating, folding, bicubic resizing.

All take and return [B, H, W, C]. `downsample` and `upsample` are ADM's inside residual blocks (mean
of 2x2 and nearest neighbour); `space_to_depth` folds s x s positions into channels, so that the
first and last convolutions of a large image feed a matrix unit more than 3 channels;
`resize_bicubic` brings the low-resolution image to an upsampler's size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def downsample(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Halves height and width: the mean of each 2x2 block."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles height and width: each value four times (nearest neighbour)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def space_to_depth(x: Float[Array, "b h w c"], factor: int) -> Array:
    """Folds factor x factor blocks into channels: [B, H/f, W/f, f*f*C], row, column, channel."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // factor, w // factor, factor**2 * c)


def depth_to_space(x: Float[Array, "b h w c"], factor: int) -> Array:
    """The inverse of `space_to_depth`: [B, H, W, f*f*C] -> [B, H*f, W*f, C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * factor, w * factor, c // factor**2)


def resize_bicubic(x: Float[Array, "b h w c"], height: int, width: int) -> Array:
    """Resizes with Keys' cubic (a = -1/2), antialiased when it shrinks: PIL's BICUBIC, in float.

    Values may overshoot the input's range a little at edges, as with every bicubic filter.
    """
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[-1]), "cubic", antialias=True)
