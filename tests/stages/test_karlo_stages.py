"""What karlo does differently: the caption "" as its null, and a network of its own for t = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng, trees
from unclip_jax.models import TextFeatures
from unclip_jax.stages.captions import Captions, arguments
from unclip_jax.stages.conditions import empty_captions
from unclip_jax.stages.sampling import Conditions, draw, make_plan, start
from unclip_jax.stages.upsampler import LAST_STEP, sample_upsampler
from unclip_jax.text import tokenize


def test_the_empty_caption_is_the_tokenizers():
    np.testing.assert_array_equal(empty_captions(2, 77), tokenize(["", ""], 77))


@pytest.mark.parametrize("kind", ["prior", "decoder"])
def test_a_stage_whose_null_is_the_empty_caption_has_no_parameters_for_it(kind):
    clip = load_config("clip:tiny").model
    paths = {}
    for null_text in ("learned", "empty"):
        config = load_config(f"{kind}:tiny", {"model.null_text": null_text})
        shapes = jax.eval_shape(stages.build(config, clip).init, jax.random.key(0))
        paths[null_text] = set(trees.flatten(shapes))
    extra = paths["learned"] - paths["empty"]
    assert paths["empty"] < paths["learned"]
    assert extra
    assert all("null_text" in path or path.startswith("text/null") for path in extra)


def test_dropped_captions_are_empty_ones():
    tokens = jnp.asarray(tokenize(["a red heart", "a fish"], 77))
    captions = Captions(tokens, jnp.array([True, False]))
    found = TextFeatures(jnp.ones((2, 3)), jnp.ones((2, 77, 4)), jnp.ones((2, 77), bool))
    call = {
        "describe": lambda found, tokens: {"tokens": tokens, "embedding": found.embedding},
        "features_of": lambda tokens: jax.tree.map(lambda x: jnp.zeros_like(x[:1]), found),
    }
    given = arguments("empty", captions, found, **call)
    np.testing.assert_array_equal(given["tokens"], tokenize(["", "a fish"], 77))
    np.testing.assert_array_equal(given["embedding"], [[0, 0, 0], [1, 1, 1]])
    given = arguments("learned", captions, found, **call)
    np.testing.assert_array_equal(given["tokens"], tokens)
    np.testing.assert_array_equal(given["drop_text"], [True, False])


def test_the_last_step_is_drawn_by_its_own_network():
    """Networks that predict constants: the result of DDPM's last step is its predicted x_0."""
    config = load_config(
        "upsampler:tiny",
        {"diffusion.prediction": "x0", "sampling.sampler": "ddpm", "sampling.steps": "4"},
    )
    calls = {"first": [], "last": []}

    def constant(name, value):
        def network(x_t, t, condition):
            calls[name].append(t)
            return jnp.full_like(x_t, value) + 0 * condition

        return network

    keys = rng.example_keys(jax.random.key(0), "test", 0, 2)
    plan = make_plan(config)
    drawn = draw(
        constant("first", 0.5),
        Conditions(jnp.zeros((2, 1))),
        start(plan, config, keys, (3,)),
        keys,
        config=config,
        plan=plan,
        last_network=constant("last", -0.25),
    )
    np.testing.assert_allclose(drawn, -0.25, atol=1e-6)
    assert calls["first"]
    assert calls["last"]


@pytest.fixture(scope="module")
def upsampler():
    overrides = {"model.last_step": "own", "model.multipliers": "(1,)", "sampling.steps": "3"}
    config = load_config("upsampler:tiny", overrides)
    stage = stages.build(config)
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(stage.init, jax.random.key(0))
    params = jax.tree.map(lambda x: 0.1 * generator.normal(size=x.shape).astype("f4"), shapes)
    return config, stage, params


def test_both_networks_have_the_same_form(upsampler):
    _, stage, params = upsampler
    rest = {k: v for k, v in params.items() if k != LAST_STEP}
    assert jax.tree.structure(rest) == jax.tree.structure(params[LAST_STEP])
    drawn = stage.init(jax.random.key(0))
    assert not np.array_equal(
        drawn["unet"]["conv_in"]["kernel"], drawn[LAST_STEP]["unet"]["conv_in"]["kernel"]
    )


def test_pictures_depend_on_both_networks(upsampler):
    config, _, params = upsampler
    low = jnp.zeros((2, 8, 8, 3))
    keys = rng.example_keys(jax.random.key(0), "test", 0, 2)
    plan = make_plan(config)
    run = jax.jit(lambda p: sample_upsampler(config, config.model, p, low, keys, plan))
    whole = run(params)
    for changed in ("unet", LAST_STEP):
        other = {**params, changed: jax.tree.map(lambda x: -x, params[changed])}
        assert np.abs(run(other) - whole).max() > 1e-3


def test_each_network_learns_from_its_own_timesteps(upsampler):
    """Few timesteps, so that some examples are at t = 0: only those move the last network."""
    _, _, params = upsampler
    config = load_config(
        "upsampler:tiny",
        {
            "model.last_step": "own",
            "model.multipliers": "(1,)",
            "diffusion.num_steps": "3",
            "sampling.steps": "3",
        },
    )
    stage = stages.build(config)
    batch = {"image_16": np.random.default_rng(1).integers(0, 256, (12, 8, 8, 3), np.uint8)}
    keys = rng.example_keys(jax.random.key(2), "train", 0, 12)
    jacobian = jax.jit(jax.jacrev(lambda p: stage.loss(p, {}, batch, keys)[0]))(params)
    size = lambda tree: sum(  # noqa: E731
        np.abs(x).reshape(12, -1).sum(1) for x in jax.tree.leaves(tree)
    )
    last, first = size(jacobian[LAST_STEP]), size(jacobian["unet"])
    assert 0 < np.count_nonzero(last) < 12
    np.testing.assert_array_equal(last > 0, first == 0)
