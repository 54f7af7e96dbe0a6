"""Decoders that see a part of the picture: what they are told, and the masks they learn from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng
from unclip_jax.stages import inpainting

SIZE, ROWS = 16, 2000


@functools.lru_cache
def masks(everything=0.0):
    keys = rng.example_keys(jax.random.key(0), "mask", 0, ROWS)
    return np.asarray(jax.jit(inpainting.sample_masks, static_argnums=1)(keys, SIZE, everything))


def test_masks_are_one_or_zero_and_leave_something_on_both_sides():
    found = masks()
    assert found.shape == (ROWS, SIZE, SIZE, 1)
    assert set(np.unique(found)) == {0.0, 1.0}
    missing = found.mean((1, 2, 3))
    assert missing.min() > 0
    assert missing.max() < 1


def test_every_kind_of_mask_is_drawn_equally_often():
    """Told apart by where they are constant: sides have whole rows or columns, boxes corners."""
    m = masks()[..., 0].astype(bool)
    rows_equal = (m == m[:, :1]).all((1, 2)) | (m == m[:, :, :1]).all((1, 2))
    filled = [np.argwhere(x) for x in m]
    rectangle = np.array([len(f) == np.prod(np.ptp(f, 0) + 1) for f in filled])
    empty = [np.argwhere(~x) for x in m]
    border = np.array([len(f) == np.prod(np.ptp(f, 0) + 1) for f in empty]) & ~rows_equal
    counts = [rows_equal.sum(), (rectangle & ~rows_equal).sum(), border.sum()]
    counts.append(ROWS - sum(counts))
    # Four binomials of 2000 at 1/4: a standard deviation is 19; brushes rarely make a rectangle.
    assert max(abs(c - ROWS / 4) for c in counts) < 100, counts


def test_sometimes_everything_is_missing():
    whole = masks(0.25).mean((1, 2, 3)) == 1
    assert abs(whole.mean() - 0.25) < 0.03  # three standard errors


def test_the_network_is_told_the_known_part_only():
    picture = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    mask = jnp.zeros((2, 4, 4, 1)).at[:, :2].set(1.0)
    told = inpainting.known_channels(picture, mask)
    assert not told[:, :2, :, :3].any()
    np.testing.assert_array_equal(told[:, 2:, :, :3], picture[:, 2:])
    np.testing.assert_array_equal(told[..., 3:], mask)
    nothing = inpainting.known_channels(picture, jnp.ones_like(mask))
    np.testing.assert_array_equal(nothing, inpainting.nothing_known(2, 4, 4))


@pytest.fixture(scope="module")
def loss_of():
    """(loss of the tiny inpainting decoder, its parameters): (params, batch) -> [B]."""
    from tests.stages.test_stages import random_batch

    config = load_config("decoder:tiny", {"model.inpainting": "true", "data.embeddings": "stored"})
    clip_config = load_config("clip:tiny")
    clip = jax.jit(stages.build(clip_config).init)(jax.random.key(1))
    stage = stages.build(config, clip_config.model)
    keys = rng.example_keys(jax.random.key(0), "train", 0, 6)
    batch = random_batch(stage.needs)
    compiled = jax.jit(lambda params: stage.loss(params, {"clip": clip}, batch, keys)[0])
    return compiled, jax.jit(stage.init)(jax.random.key(0))


def test_it_starts_as_if_nothing_were_known_and_can_learn_otherwise(loss_of):
    loss, params = loss_of
    kernel = params["unet"]["conv_in"]["kernel"]
    assert kernel.shape[2] == 7
    assert not kernel[:, :, 3:].any()
    # A network whose last layer is zero says nothing yet: give it something to say.
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * generator.normal(size=x.shape), params)
    before = loss(inpainting.start_from_zero(params))
    after = loss(params)
    assert before.shape == (6,)
    assert np.abs(before - after).min() > 1e-6
