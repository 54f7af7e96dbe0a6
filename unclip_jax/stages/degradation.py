"""How the small picture of an upsampler's training pair is made worse than a clean thumbnail.

What the stage before it draws is softer, noisier and has other artefacts than a thumbnail of a real
picture. The paper blurs for the 64 -> 256 px upsampler and degrades as BSRGAN does for the larger
one (arXiv 2204.06125, section 2.1). The BSRGAN pipeline (Zhang et al. 2021, arXiv 2103.14006, with
the ranges of the lighter form in Rombach et al. 2022) applies to the large picture, in an order
drawn anew for each example:

    blur      anisotropic Gaussian of 7 x 7, deviations 0.1 to 2.8 pixels, any angle
    rescale   to 0.5 … 1 of the side and back, antialiased bilinear, in 3 of 4 examples
    noise     Gaussian of deviation 1 … 25 of 255, grey in 2 of 5 examples, else per channel
    jpeg      quality 30 … 95, in 9 of 10 examples

It is then averaged down and compressed once more (quality 80 … 95). All draws come from the
example's own key; all shapes are fixed, so that it is a part of the compiled step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unclip_jax.core import rng
from unclip_jax.stages.jpeg import jpeg

_BLUR_REACH = 3
NO_LOSS = 0  # in place of a quality
_LEVEL = 2 / 255  # one step of 8-bit pixels, on the scale [-1, 1]
One = Float[Array, "s s 3"]


class Draws(NamedTuple):
    """All that is drawn for one example."""

    order: Int[Array, "4"]
    kernel: Float[Array, "7 7"]
    size: Int[Array, ""]  # of the side, on the way down and up
    noise: One
    quality: Int[Array, ""]
    last_quality: Int[Array, ""]


def bsr(
    high: Float[Array, "b s s 3"], low_size: int, keys: Key[Array, " b"]
) -> Float[Array, "b l l 3"]:
    """Small pictures in [-1, 1], degraded; example i comes from keys[i] alone."""

    def degrade(picture: One, key: Key[Array, ""]) -> One:
        draws = draw(key, picture.shape[0])

        def step(picture: One, operation: Int[Array, ""]) -> tuple[One, None]:
            return jax.lax.switch(operation, _OPERATIONS, picture, draws), None

        picture, _ = jax.lax.scan(step, picture, draws.order)
        return jpeg(shrink(picture[None], low_size)[0], draws.last_quality)

    return jax.vmap(degrade)(high, rng.fold_in_name(keys, "bsr"))


def draw(key: Key[Array, ""], side: int) -> Draws:
    """Draws what is done to a picture of this side, in the ranges of the module's table."""
    keys = iter(jax.random.split(key, 11))

    def uniform(low: float, high: float, shape: tuple[int, ...] = ()) -> Array:
        return jax.random.uniform(next(keys), shape, minval=low, maxval=high)

    def whole(low: int, high: int) -> Array:
        return jax.random.randint(next(keys), (), low, high + 1)

    def one_in(chance: float, chosen: Array, otherwise: Array | int) -> Array:
        return jnp.where(jax.random.bernoulli(next(keys), chance), chosen, otherwise)

    noise = uniform(1, 25) * _LEVEL * jax.random.normal(next(keys), (side, side, 3))
    return Draws(
        order=jax.random.permutation(next(keys), len(_OPERATIONS)),
        kernel=gaussian_kernel(uniform(0.1, 2.8, (2,)), uniform(0, np.pi)),
        size=one_in(0.75, whole(side // 2, side), side),
        noise=one_in(0.4, jnp.broadcast_to(noise[..., :1], noise.shape), noise),
        quality=one_in(0.9, whole(30, 95), NO_LOSS),
        last_quality=whole(80, 95),
    )


def shrink(pictures: Float[Array, "b s s 3"], size: int) -> Float[Array, "b l l 3"]:
    """Averages over blocks of pixels; `size` divides the side."""
    batch, side, _, channels = pictures.shape
    block = side // size
    return pictures.reshape(batch, size, block, size, block, channels).mean((2, 4))


def blur(pictures: Float[Array, "b h w c"], sigma: float) -> Float[Array, "b h w c"]:
    """Separable 3-tap Gaussian; edges are repeated."""
    side = jnp.exp(-0.5 / sigma**2)
    for axis in (1, 2):
        padding = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        wide = jnp.pad(pictures, padding, mode="edge")
        size = pictures.shape[axis]
        before, middle, after = (
            jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(3)
        )
        pictures = (middle + side * (before + after)) / (1 + 2 * side)
    return pictures


def gaussian_kernel(sigmas: Float[Array, "2"], angle: Float[Array, ""]) -> Float[Array, "k k"]:
    """7 x 7 weights of sum 1 with deviations `sigmas` along axes turned by `angle`."""
    y, x = np.mgrid[-_BLUR_REACH : _BLUR_REACH + 1, -_BLUR_REACH : _BLUR_REACH + 1]
    along = x * jnp.cos(angle) + y * jnp.sin(angle)
    across = y * jnp.cos(angle) - x * jnp.sin(angle)
    weights = jnp.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    return weights / weights.sum()


def rescale(picture: One, size: Int[Array, ""]) -> One:
    """The picture at side `size` (traced) and back, by antialiased bilinear interpolation."""
    return _separable(picture, down_and_up(picture.shape[0], size))


def down_and_up(side: int, size: Int[Array, ""]) -> Float[Array, "n n"]:
    """The matrix that takes `side` samples to `size` <= side of them and back."""
    index = jnp.arange(side)
    inside = index < size
    ratio = size / side
    # Where the middle of small pixel j lies in the large picture, and of large i in the small one.
    centre = (index + 0.5) / ratio - 0.5
    down = _triangle((centre[:, None] - index[None, :]) * ratio)
    down = down / down.sum(axis=1, keepdims=True)
    place = jnp.clip((index + 0.5) * ratio - 0.5, 0, size - 1)
    up = _triangle(place[:, None] - index[None, :]) * inside[None, :]
    return (up / up.sum(axis=1, keepdims=True)) @ jnp.where(inside[:, None], down, 0.0)


def convolve(picture: One, kernel: Float[Array, "7 7"]) -> One:
    """The picture under a kernel; edges are repeated."""
    reach = (_BLUR_REACH, _BLUR_REACH)
    wide = jnp.pad(picture, (reach, reach, (0, 0)), mode="edge").transpose(2, 0, 1)[:, None]
    blurred = jax.lax.conv(wide, kernel[None, None], (1, 1), "VALID")
    return blurred[:, 0].transpose(1, 2, 0)


_OPERATIONS: tuple[Callable[[One, Draws], One], ...] = (
    lambda picture, draws: convolve(picture, draws.kernel),
    lambda picture, draws: rescale(picture, draws.size),
    lambda picture, draws: jnp.clip(picture + draws.noise, -1, 1),
    lambda picture, draws: jnp.where(
        draws.quality == NO_LOSS, picture, jpeg(picture, draws.quality)
    ),
)


def _separable(picture: One, matrix: Float[Array, "n n"]) -> One:
    return jnp.einsum("ij,kl,jlc->ikc", matrix, matrix, picture)


def _triangle(distance: Array) -> Array:
    return jnp.maximum(0.0, 1.0 - jnp.abs(distance))
