"""A decoder that is told a part of its picture, and the masks that it learns from.

    input of the U-Net = [x_t, picture (1 - mask), mask],           mask = 1 where nothing is known

Four more input channels, as in GLIDE (Nichol et al. 2021, section 2.4 and appendix C); their
weights start at zero, so a decoder that gets them later begins as the one it was. Masks of training
are, in equal parts,

    a box        a rectangle of 1/4 to 3/4 of each side is missing
    a border     everything but such a rectangle is missing: what surrounds a picture
    one side     all beyond a straight edge is missing: what outpainting asks for
    a brush      strokes are missing

and with a given probability everything is missing, so that the same decoder draws whole pictures.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unclip_jax.stages.stage import Params

EXTRA_CHANNELS = 4  # the known picture and the mask
STROKES, POINTS = 3, 12


def known_channels(
    picture: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
) -> Float[Array, "b h w 4"]:
    """What the network is told: the picture where it is known, and the mask."""
    return jnp.concatenate([picture * (1 - mask), mask], axis=-1)


def nothing_known(count: int, height: int, width: int) -> Float[Array, "b h w 4"]:
    """`known_channels` of a picture of which nothing is known."""
    return jnp.zeros((count, height, width, EXTRA_CHANNELS)).at[..., -1].set(1.0)


def start_from_zero(params: Params) -> Params:
    """The parameters of a decoder whose first convolution ignores the extra channels."""
    unet = params["unet"]
    kernel = unet["conv_in"]["kernel"].at[:, :, -EXTRA_CHANNELS:].set(0.0)
    conv_in = {**unet["conv_in"], "kernel": kernel}
    return {**params, "unet": {**unet, "conv_in": conv_in}}


def sample_masks(
    keys: Key[Array, " b"], size: int, everything: float
) -> Float[Array, "b size size 1"]:
    """A mask for each key, 1 where the picture is missing.

    Args:
      everything: the probability that all of it is.
    """

    def one(key: Key[Array, ""]) -> Float[Array, "size size"]:
        kind, whole, *shapes = jax.random.split(key, 6)
        box, inner, side, brush = shapes
        masks = [_box(box, size), 1 - _box(inner, size), _side(side, size), _brush(brush, size)]
        mask = jnp.stack(masks)[jax.random.randint(kind, (), 0, len(masks))]
        return jnp.where(jax.random.bernoulli(whole, everything), 1.0, mask)

    return jax.vmap(one)(keys)[..., None]


def _grid(size: int) -> tuple[Array, Array]:
    """Rows [S, 1] and columns [1, S] of the centres of pixels, 0 to 1."""
    centres = (jnp.arange(size) + 0.5) / size
    return centres[:, None], centres[None]


def _box(key: Key[Array, ""], size: int) -> Float[Array, "s s"]:
    sides, places = jax.random.split(key)
    height, width = jax.random.uniform(sides, (2,), minval=0.25, maxval=0.75)
    top, left = jax.random.uniform(places, (2,))
    top, left = top * (1 - height), left * (1 - width)
    y, x = _grid(size)
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return inside.astype(jnp.float32)


def _side(key: Key[Array, ""], size: int) -> Float[Array, "s s"]:
    where, which = jax.random.split(key)
    edge = jax.random.uniform(where, minval=0.25, maxval=0.75)
    y, x = _grid(size)
    full = jnp.zeros((size, size))
    far = jnp.stack([y + full, x + full, 1 - y + full, 1 - x + full])
    return (far[jax.random.randint(which, (), 0, 4)] > edge).astype(jnp.float32)


def _brush(key: Key[Array, ""], size: int) -> Float[Array, "s s"]:
    """Random walks of round dabs."""
    starts, steps, radii = jax.random.split(key, 3)
    start = jax.random.uniform(starts, (STROKES, 1, 2))
    walk = jnp.cumsum(0.1 * jax.random.normal(steps, (STROKES, POINTS, 2)), axis=1)
    points = jnp.clip(start + walk, 0, 1).reshape(-1, 2)
    radius = jax.random.uniform(radii, (STROKES, 1), minval=0.04, maxval=0.12)
    radius = jnp.broadcast_to(radius, (STROKES, POINTS)).reshape(-1)
    y, x = _grid(size)
    offset_y = y[None] - points[:, 0, None, None]
    offset_x = x[None] - points[:, 1, None, None]
    near = offset_y**2 + offset_x**2 < radius[:, None, None] ** 2
    return near.any(axis=0).astype(jnp.float32)
