"""CLIP: recorded outputs of two libraries, published sizes, pooling, preprocessing."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.interop.clip_weights import import_clip
from unclip_jax.models import CLIP_SIZES, Clip, resize_for_clip
from unclip_jax.models.text_tower import eot_positions, token_mask

VECTORS = pathlib.Path(__file__).parents[1] / "vectors"
EOT = 63


@functools.cache
def recording(dialect, activation):
    """(model, its variables, the recorded arrays) of a library's CLIP with random weights."""
    recorded = dict(np.load(VECTORS / f"clip_{dialect}.npz"))
    clip = Clip(**json.loads(str(recorded["size"])), activation=activation, scan_layers=True)
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}
    return clip, {"params": import_clip(weights, clip)}, recorded


@functools.cache
def encoders(clip):
    """Compiled (variables, images) -> embeddings and (variables, tokens) -> TextFeatures."""
    return (
        jax.jit(functools.partial(clip.apply, method="encode_image")),
        jax.jit(functools.partial(clip.apply, method="encode_text")),
    )


def assert_near(got, wanted):
    error = np.abs(np.asarray(got) - wanted).max() / np.abs(wanted).max()
    assert error < 1e-5, error


@pytest.mark.parametrize("dialect", ["open_clip", "huggingface"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_outputs_equal_those_recorded_from_other_libraries(dialect, activation):
    clip, variables, recorded = recording(dialect, activation)
    encode_image, encode_text = encoders(clip)
    image = encode_image(variables, recorded["images"])
    text = encode_text(variables, recorded["tokens"])
    assert_near(image, recorded[f"{activation}/image_embedding"])
    assert_near(text.embedding, recorded[f"{activation}/text_embedding"])
    assert_near(text.states, recorded[f"{activation}/states"])
    np.testing.assert_array_equal(text.mask, np.arange(10) <= np.array([[3], [9], [6]]))


def test_the_two_activations_differ():
    recorded = recording("open_clip", "gelu")[2]
    difference = recorded["gelu/image_embedding"] - recorded["quick_gelu/image_embedding"]
    assert np.abs(difference).max() > 1e-3


def test_a_call_returns_what_the_encoders_do_and_the_logarithmic_scale():
    clip, variables, recorded = recording("open_clip", "gelu")
    encode_image, encode_text = encoders(clip)
    image, text, scale, bias = jax.jit(clip.apply)(
        variables, recorded["images"], recorded["tokens"]
    )
    assert_near(image, encode_image(variables, recorded["images"]))
    assert_near(text, encode_text(variables, recorded["tokens"]).embedding)
    assert float(scale) == 2.5
    assert bias is None


def test_what_follows_the_end_of_text_changes_no_embedding_and_no_real_state():
    clip, variables, recorded = recording("open_clip", "gelu")
    encode_text = encoders(clip)[1]
    tokens = recorded["tokens"]
    changed = np.where(np.arange(10) > np.array([[3], [9], [6]]), 17, tokens)
    assert (changed != tokens).any()
    a, b = encode_text(variables, tokens), encode_text(variables, changed)
    np.testing.assert_array_equal(a.embedding, b.embedding)
    np.testing.assert_array_equal(a.states[a.mask], b.states[b.mask])


def test_the_end_of_text_is_found_by_its_id():
    tokens = jnp.array([[5, EOT, 0, 0], [5, 6, 7, EOT], [5, EOT, 70, EOT], [1, 2, 3, 4]])
    np.testing.assert_array_equal(eot_positions(tokens, EOT), [1, 3, 1, 3])
    wanted = [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(token_mask(tokens, EOT), np.array(wanted, bool))
    stock = jnp.array([[49406, 320, 49407, 0], [49406, 49407, 0, 0]])
    np.testing.assert_array_equal(eot_positions(stock), jnp.argmax(stock, axis=1))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14@336", 427_944_193),
        ("ViT-H/14", 986_109_441),
        ("ViT-bigG/14", 2_539_567_105),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters, claim):
    clip = Clip(**CLIP_SIZES[name], scan_layers=True)
    images = jax.ShapeDtypeStruct((1, clip.image_size, clip.image_size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, 77), jnp.int32)
    counted = trees.count(jax.eval_shape(clip.init, jax.random.key(0), images, tokens))
    claim.equal(f"parameters of {name}", "the published weights", counted, parameters)


def test_a_sigmoid_clip_starts_from_its_scale_and_bias():
    size = json.loads(str(recording("open_clip", "gelu")[2]["size"]))
    size |= {"vision_layers": 1, "text_layers": 1}
    clip = Clip(**size, initial_logit_scale=2.0, initial_logit_bias=-10.0)
    tokens = jnp.zeros((1, 10), jnp.int32)
    params = jax.jit(clip.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), tokens)["params"]
    assert float(params["logit_bias"]) == -10.0
    assert float(params["logit_scale"]) == 2.0


def test_images_of_another_size_are_refused_with_the_remedy():
    clip, variables, _ = recording("open_clip", "gelu")
    with pytest.raises(UserError, match=r"\(16, 16, 3\), not \(32, 32, 3\): resize_for_clip"):
        clip.apply(variables, jnp.zeros((1, 32, 32, 3)), method="encode_image")


@pytest.mark.parametrize(("height", "width", "size"), [(64, 64, 16), (50, 70, 21), (20, 20, 48)])
def test_resizing_is_pillows_bicubic_of_the_central_square(height, width, size):
    rng = np.random.default_rng(0)
    sharp = rng.choice(np.array([0, 90, 255], np.uint8), (8, 8, 3))  # bicubic overshoots these
    picture = Image.fromarray(sharp).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.float32)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = pixels[top : top + side, left : left + side]
    bicubic = functools.partial(Image.Image.resize, size=(size, size), resample=Image.BICUBIC)
    planes = [bicubic(Image.fromarray(square[..., c])) for c in range(3)]  # float: not rounded
    wanted = np.clip(np.stack([np.asarray(plane) for plane in planes], axis=-1), 0, 255)
    got = resize_for_clip(jnp.asarray(pixels)[None] / 127.5 - 1, size)
    assert got.shape == (1, size, size, 3)
    np.testing.assert_allclose((got[0] + 1) * 127.5, wanted, atol=1e-3)
