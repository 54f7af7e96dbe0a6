"""The same for U-Nets: the decoder (attention, two conditions) and the upsampler, both tiny."""

import functools

import numpy as np
import optax
import pytest
from mesh_runs import COMPLAINT, compiled_anew, losses_ahead, start

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import trees
from unclip_jax.parallel.collectives import bytes_by_kind
from unclip_jax.training.optimizer import Optimizer

ROWS = 8
CLIP = load_config("clip:tiny").model
STORED = {"data.embeddings": "stored", "data.text_features": "stored"}
LEAST = {"model.depth": "0"}  # blocks of every kind are left: in the middle and going up
SMALLER = {
    "model.multipliers": "(1,)",
    "model.attention_resolutions": "(8,)",
    "model.head_channels": "8",
}
FLOAT = 4


def decoder(accumulate, **smaller):
    config = load_config("decoder:tiny", STORED | LEAST | accumulated(accumulate) | smaller)
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 1000, (ROWS, CLIP.context_length)).astype(np.int32)
    tokens[:, 9:] = 49407
    normal = lambda *shape: draw.normal(size=(ROWS, *shape)).astype(np.float32)  # noqa: E731
    return stages.build(config, CLIP), {
        "image_8": draw.integers(0, 256, (ROWS, 8, 8, 3)).astype(np.uint8),
        "tokens": tokens,
        "image_embedding": normal(CLIP.embedding_dim),
        "text_embedding": normal(CLIP.embedding_dim),
        "text_states": normal(CLIP.context_length, CLIP.text_width),
    }


def small_decoder(accumulate):
    return decoder(accumulate, **SMALLER)


def upsampler(accumulate):
    config = load_config("upsampler:tiny", LEAST | accumulated(accumulate))
    pictures = np.random.default_rng(0).integers(0, 256, (ROWS, 16, 16, 3))
    return stages.build(config), {"image_16": pictures.astype(np.uint8)}


def accumulated(parts):
    return {"train.batch_size": str(ROWS), "train.accumulate": str(parts)}


@functools.cache
def run(build, accumulate=1, **axes):
    stage, batch = build(accumulate)
    return start(
        stage, batch, accumulate=accumulate, draw=False, tx=Optimizer((), optax.sgd(1e-3)), **axes
    )


@functools.cache
def on_one_device(build):
    return losses_ahead(run(build, data=1))


def assert_the_same(build, capfd, **axes):
    with compiled_anew():
        found = losses_ahead(run(build, **axes))
    assert COMPLAINT not in capfd.readouterr().err
    np.testing.assert_allclose(found, on_one_device(build), rtol=1e-5, atol=1e-6)


def test_a_decoder_on_two_devices(capfd):
    """Each split kernel is gathered once, those of 3 x 3 convolutions also for the backward pass,
    and gradients are summed once; on CPU a reduce-scatter is an all-reduce and a slice."""
    axes = {"data": 1, "fsdp": 2}
    assert_the_same(small_decoder, capfd, **axes)
    part = run(small_decoder, **axes)
    layout, params = (trees.flatten(t) for t in (part.layout.params, part.state.params))
    split = {path: x.size * FLOAT for path, x in params.items() if any(layout[path].spec)}
    again = sum(size for path, size in split.items() if params[path].shape[:2] == (3, 3))
    scalars = sum(c.shapes.count("f32[]") for c in part.sent)  # norms, summed along
    assert bytes_by_kind(part.sent) == {
        "all-gather": sum(split.values()) + again,
        "all-reduce": (trees.count(part.state.params) + scalars) * FLOAT,
    }


def test_tensor_parallelism_sums_activations_of_each_block():
    """Forwards after each of 3 residual blocks and 2 attentions; backwards before each of them,
    where queries, keys and values are summed apart, as are the context's keys and values, and one
    block has twice the channels."""
    part = run(small_decoder, data=1, tensor=2)
    picture = ROWS * 8 * 8 * 16 * FLOAT
    context = ROWS * (4 + CLIP.context_length) * 32 * FLOAT
    scalars = sum(c.shapes.count("f32[]") for c in part.sent)
    found = bytes_by_kind(part.sent)
    activations = (3 + 2 + (2 + 1 * 2) + 2 * 3) * picture + 2 * 2 * context
    assert found.pop("all-reduce") == activations + scalars * FLOAT
    # Of the embedding of t, in the backward pass; not of activations.
    assert sum(found.values()) < 2 * picture


@pytest.mark.parametrize("build", [decoder, upsampler])
@pytest.mark.parametrize(
    "axes",
    [
        {"data": 2},
        {"data": 8},
        {"data": 1, "fsdp": 8},
        {"data": 1, "tensor": 2},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"data": 2, "accumulate": 2},
        {"data": 1, "fsdp": 2, "accumulate": 2},
    ],
    ids=str,
)
def test_u_nets_on_any_mesh(build, axes, capfd):
    assert_the_same(build, capfd, **axes)
