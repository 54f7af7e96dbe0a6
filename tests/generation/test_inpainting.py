"""Filling in and drawing beyond: known pixels stay, bit for bit, and tiles make one canvas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.generation.inpainting import Margins, canvas_step
from unclip_jax.stages.tiles import offsets, tent, tiled

BATCH = {"batch_size": 4, "count": 2}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    """A hole whose edges do not lie on the decoder's pixels."""
    hole = np.zeros((16, 16), bool)
    hole[3:9, 5:12] = True
    return hole


@pytest.fixture(scope="module")
def trained(make, clip, one_device):
    """A pipeline whose decoder is shown the known part."""
    decoder = make("decoder", clip, model__inpainting="true")
    parts = [make("upsampler"), decoder, make("prior", clip), clip]
    return Pipeline(compose(parts), one_device)


def coarse(mask):
    return mask.reshape(8, 2, 8, 2).any((1, 3))


def test_repaint_keeps_known_pixels_bit_for_bit(pipeline, picture, mask):
    found = pipeline.inpaint(picture, mask, "a red heart", **BATCH)
    assert found.facts["method"] == "repaint"
    for drawn in found.images[0]:
        np.testing.assert_array_equal(drawn[~mask], picture[~mask])
        assert (drawn[mask] != picture[mask]).mean() > 0.9
    small = found.stages["decoder"][0]
    np.testing.assert_array_equal(small[0][~coarse(mask)], small[1][~coarse(mask)])
    assert (small[0][coarse(mask)] != small[1][coarse(mask)]).any()


def test_a_trained_decoder_keeps_them_too_and_sees_them(trained, picture, mask):
    found = trained.inpaint(picture, mask, "a red heart", **BATCH)
    assert found.facts["method"] == "trained"
    np.testing.assert_array_equal(found.images[0, 0][~mask], picture[~mask])
    # What it is shown has an effect beyond putting the known part back after each step.
    blind = trained.inpaint(picture, mask, "a red heart", method="repaint", **BATCH)
    assert (blind.stages["decoder"] != found.stages["decoder"]).any()


def test_without_a_prompt_the_hole_does_not_matter(pipeline, picture, mask):
    """The embedding is that of the picture with its hole filled evenly."""
    scribbled = picture.copy()
    scribbled[mask] = 7
    first = pipeline.inpaint(picture, mask, **BATCH)
    second = pipeline.inpaint(scribbled, mask, **BATCH)
    np.testing.assert_array_equal(first.images, second.images)


def test_outpainting_puts_the_picture_on_a_larger_canvas(pipeline, picture):
    found = pipeline.outpaint(picture, Margins(top=8, right=16), "a fish", **BATCH)
    assert found.images.shape == (1, 2, 24, 32, 3)
    assert found.stages["decoder"].shape == (1, 2, 12, 16, 3)
    np.testing.assert_array_equal(found.images[0, 0][8:, :16], picture)
    assert (found.images[0, 0] != found.images[0, 1]).any()


def test_canvases_must_suit_every_stage(pipeline, picture, make, clip, one_device):
    assert canvas_step(pipeline) == 2
    deep = make("upsampler", model__multipliers="(1,1,1)")
    parts = [clip, make("prior", clip), make("decoder", clip), deep]
    assert canvas_step(Pipeline(compose(parts), one_device)) == 4
    with pytest.raises(UserError, match="multiples of 2 px"):
        pipeline.outpaint(picture, Margins(left=3))
    with pytest.raises(UserError, match="one must be positive"):
        pipeline.outpaint(picture, Margins())


def test_masks_must_fit_and_leave_something(pipeline, picture, mask):
    with pytest.raises(UserError, match=r"mask: is \(8, 16\)"):
        pipeline.inpaint(picture, mask[:8])
    for whole in (mask & False, mask | True):
        with pytest.raises(UserError, match="leave a part"):
            pipeline.inpaint(picture, whole)


@pytest.mark.parametrize(
    ("length", "starts"), [(8, [0]), (9, [0, 1]), (12, [0, 4]), (16, [0, 4, 8]), (17, [0, 3, 6, 9])]
)
def test_tiles_cover_the_canvas_and_overlap(length, starts):
    found = offsets(length, 8, 4)
    assert found == starts
    assert found[-1] + 8 == length
    assert all(b - a <= 4 for a, b in itertools.pairwise(found))


def test_tiles_of_a_pointwise_network_are_the_network_itself():
    """What does not look around says the same in every tile, so averaging changes nothing."""

    def network(x, t, given):
        return x * given["scale"][:, None, None, None] + given["known"][..., :3] + t[0]

    x = jax.random.normal(jax.random.key(0), (2, 11, 20, 3))
    known = jax.random.normal(jax.random.key(1), (2, 11, 20, 4))
    given = {"scale": jnp.array([2.0, 3.0]), "known": known}
    t = jnp.full(2, 5)
    found = tiled(network, 8, 4)(x, t, given)
    np.testing.assert_allclose(found, network(x, t, given), rtol=1e-5, atol=1e-5)


def test_where_tiles_overlap_their_weighted_mean_is_taken():
    """A network that answers with its tile's first pixel."""

    def network(x, t, given):
        return jnp.broadcast_to(x[:, :1, :1], x.shape)

    x = jnp.zeros((1, 8, 12, 1)).at[0, 0, 0].set(1.0).at[0, 0, 4].set(3.0)
    found = tiled(network, 8, 4)(x, jnp.zeros(1, jnp.int32), {})[0, 0, :, 0]
    weight = tent(8)[4]
    wanted = [1.0] * 4
    for i in range(4):
        a, b = weight[4 + i], weight[i]
        wanted.append((a * 1 + b * 3) / (a + b))
    np.testing.assert_allclose(found, wanted + [3.0] * 4, rtol=1e-5)
