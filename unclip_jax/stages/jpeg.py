"""What JPEG compression does to a picture, in JAX: colours, 8 x 8 cosines, rounding, and back.

Baseline JPEG without chroma subsampling (ITU-T T.81): YCbCr of JFIF, an orthonormal DCT of each
8 x 8 block, coefficients rounded to multiples of the table of annex K scaled for the quality as the
Independent JPEG Group's library does, the inverse. Entropy coding is lossless and left out.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TABLES = np.stack([_LUMA, _CHROMA, _CHROMA])  # Y, Cb, Cr
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_TO_RGB = np.linalg.inv(_TO_YCC).astype(np.float32)
_CENTRE = np.array([[[128, 0, 0]]], np.float32)  # Cb and Cr of JFIF less 128 are centred already
_BLOCK = 8


def _cosines() -> np.ndarray:
    """The orthonormal DCT-II of 8 samples."""
    k, n = np.mgrid[:_BLOCK, :_BLOCK]
    scale = np.where(k == 0, np.sqrt(1 / _BLOCK), np.sqrt(2 / _BLOCK))
    return (scale * np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK))).astype(np.float32)


def quantisation(quality: Int[Array, ""]) -> Float[Array, "3 8 8"]:
    """The tables of Y, Cb and Cr for a quality of 1 to 100."""
    scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((_TABLES * scale + 50) // 100, 1, 255).astype(jnp.float32)


def jpeg(picture: Float[Array, "h w 3"], quality: Int[Array, ""]) -> Float[Array, "h w 3"]:
    """The picture, in [-1, 1], after compression at a quality (traced, 1 to 100)."""
    height, width, _ = picture.shape
    pixels = jnp.round((picture + 1) * 127.5)
    rows, columns = -height % _BLOCK, -width % _BLOCK
    pixels = jnp.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge")
    colours = jnp.round(pixels @ _TO_YCC.T) - _CENTRE
    high, wide = pixels.shape[0] // _BLOCK, pixels.shape[1] // _BLOCK
    blocks = colours.reshape(high, _BLOCK, wide, _BLOCK, 3)
    cosines, table = _cosines(), quantisation(quality)
    spectrum = jnp.einsum("ki,lj,aibjc->abckl", cosines, cosines, blocks)
    spectrum = jnp.round(spectrum / table[None, None]) * table[None, None]
    blocks = jnp.einsum("ki,lj,abckl->aibjc", cosines, cosines, spectrum)
    colours = blocks.reshape(pixels.shape) + _CENTRE
    pixels = jnp.clip(jnp.round(jnp.round(colours) @ _TO_RGB.T), 0, 255)
    return pixels[:height, :width] / 127.5 - 1
