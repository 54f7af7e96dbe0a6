"""The stages on tiny batches: losses per example, independent draws, conditioning that matters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.config.needs import Window
from unclip_jax.config.schema import Mesh
from unclip_jax.core import rng
from unclip_jax.parallel import batch_sharding, make_mesh
from unclip_jax.stages import features
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.conditions import flags
from unclip_jax.stages.features import cut
from unclip_jax.text import tokenize

ROWS = 6


def random_batch(needs, dim=16, rows=ROWS):
    generator = np.random.default_rng(0)
    batch = {}
    for name, s in needs.sides().items():
        batch[name] = generator.integers(0, 256, (rows, s, s, 3)).astype(np.uint8)
    if needs.context_length:
        tokens = generator.integers(1, 1000, (rows, needs.context_length)).astype(np.int32)
        tokens[:, 0] = 49406
        tokens[:, 5] = 49407
        tokens[:, 6:] = 0
        batch["tokens"] = tokens
    for kind in needs.embeddings:
        batch[f"{kind}_embedding"] = generator.normal(size=(rows, dim)).astype(np.float32)
    return batch


@pytest.fixture(scope="module")
def frozen():
    clip = stages.build(load_config("clip:tiny"))
    params = jax.jit(clip.init)(jax.random.key(1))
    return {
        "clip": params,
        "statistics": {"mean": jnp.full(16, 0.1), "std": jnp.full(16, 0.5)},
    }


@functools.lru_cache
def make(name, embeddings="computed"):
    """(stage, parameters, compiled loss) of a tiny config."""
    config = load_config(f"{name}:tiny", {"data.embeddings": embeddings})
    stage = stages.build(config, load_config("clip:tiny").model)
    return stage, jax.jit(stage.init)(jax.random.key(0)), jax.jit(stage.loss)


@pytest.mark.parametrize("name", ["clip", "prior", "decoder", "upsampler"])
def test_losses_are_per_example_and_finite(name, frozen):
    stage, params, loss = make(name)
    batch = random_batch(stage.needs)
    keys = rng.example_keys(jax.random.key(0), "train", 0, ROWS)
    losses, diagnostics = loss(params, frozen, batch, keys)
    assert losses.shape == (ROWS,)
    assert np.all(np.isfinite(losses))
    for values, weights in diagnostics.values():
        assert values.shape == weights.shape == (ROWS,)


def test_how_a_clip_batch_is_computed_changes_no_loss_and_no_gradient():
    """All at once, against towers in chunks and embeddings round a ring of 4 devices."""
    small = {"model.vision_layers": "1", "model.text_layers": "1", "model.loss": "sigmoid"}
    plain = load_config("clip:tiny", small)
    spread = load_config("clip:tiny", small | {"train.accumulate": "2", "model.ring_loss": "true"})
    params = jax.jit(stages.build(plain).init)(jax.random.key(0))
    batch = random_batch(stages.build(plain).needs, rows=8)
    keys = rng.example_keys(jax.random.key(0), "train", 0, 8)
    mesh = make_mesh(Mesh(data=2, fsdp=2), jax.devices()[:4])

    def run(config):
        stage = stages.build(config)

        def mean(params, batch):
            losses, diagnostics = stage.loss(params, {}, batch, keys)
            weights = jnp.linspace(0.5, 1.5, 8)
            return jnp.mean(weights * losses), (losses, diagnostics["accuracy"][0])

        return jax.jit(jax.value_and_grad(mean, has_aux=True))(
            params, jax.device_put(batch, batch_sharding(mesh))
        )

    with jax.set_mesh(mesh):
        a, b = run(plain), run(spread)
        text = jax.jit(stages.build(spread).loss).lower(params, {}, batch, keys).as_text()
    assert "collective_permute" in text
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), a, b)


def test_a_clip_keeps_its_logit_scale_in_range():
    stage = stages.build(load_config("clip:tiny"))
    assert float(stage.constrain({"logit_scale": jnp.asarray(9.0)})["logit_scale"]) <= np.log(100.1)


@pytest.mark.parametrize("name", ["prior", "decoder", "upsampler"])
def test_an_example_does_not_depend_on_its_neighbours(name, frozen):
    """Row i's timestep, noise, crops and drops come from its own key."""
    stage, params, loss = make(name)
    batch = random_batch(stage.needs)
    keys = rng.example_keys(jax.random.key(0), "train", 3, ROWS)
    whole = loss(params, frozen, batch, keys)[0]
    rows = np.array([4, 1, 0, 0, 0, 0])  # as many, so that nothing compiles twice
    other = loss(params, frozen, {k: v[rows] for k, v in batch.items()}, keys[rows])[0]
    np.testing.assert_allclose(other, whole[rows], rtol=2e-5)


def test_quartile_weights_partition_the_batch(frozen):
    stage, params, loss = make("prior")
    keys = rng.example_keys(jax.random.key(0), "train", 0, ROWS)
    _, diagnostics = loss(params, frozen, random_batch(stage.needs), keys)
    total = sum(diagnostics[f"simple_q{q}"][1] for q in range(4))
    np.testing.assert_array_equal(total, np.ones(ROWS))


def test_drops_are_independent_and_at_the_configured_rates():
    keys = rng.example_keys(jax.random.key(0), "train", 0, 20_000)
    image, text = flags(keys, "drop image", 0.1), flags(keys, "drop text", 0.5)
    assert abs(image.mean() - 0.1) < 0.008  # over three standard errors
    assert abs(text.mean() - 0.5) < 0.012
    assert abs((image & text).mean() - 0.05) < 0.006


def test_stored_embeddings_give_the_loss_of_computed_ones(frozen):
    computed, params, computed_loss = make("decoder")
    stored, _, stored_loss = make("decoder", "stored")
    assert stored.needs.image_sizes == (8,)
    batch = random_batch(computed.needs)
    clip = make_clip(load_config("clip:tiny").model, "float32")
    z = jax.jit(lambda b: features.image_embedding(clip, frozen, b))(batch)
    keys = rng.example_keys(jax.random.key(0), "train", 0, ROWS)
    small = {"image_8": batch["image_8"], "tokens": batch["tokens"], "image_embedding": z}
    np.testing.assert_allclose(
        stored_loss(params, frozen, small, keys)[0],
        computed_loss(params, frozen, batch, keys)[0],
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("variant", "fraction", "window"),
    [
        ("tiny", 0.5, Window(8, grid=2)),
        ("tiny", 1.0, None),
        ("karlo", 0.25, Window(64, grid=4)),
        ("paper_1024", 0.25, Window(256, grid=4)),
    ],
)
def test_an_upsampler_learns_from_crops_on_pixels_of_the_small_picture(variant, fraction, window):
    config = load_config(f"upsampler:{variant}", {"model.crop_fraction": str(fraction)})
    needs = stages.build(config).needs
    assert needs.window == window
    assert needs.whole().sides() == {f"image_{config.model.image_size}": config.model.image_size}


def test_long_texts_are_cut_for_clip_as_the_tokenizer_cuts():
    texts = ["a cat", "one two three four five six seven eight nine ten"]
    long, short = tokenize(texts, 20), tokenize(texts, 8)
    np.testing.assert_array_equal(cut(jnp.asarray(long), 8, 49407), short)
