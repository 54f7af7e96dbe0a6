"""The prior: recorded outputs of diffusers, published size, what it may and may not see."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.models import PriorTransformer, stack_layers

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "prior.npz"
SIZE = {"embedding_dim": 6, "width": 16, "layers": 2, "heads": 2, "context_length": 5}
TRAINED = {"text_encoder": "trained", "text_width": 8, "text_layers": 1, "text_heads": 2}
TRAINED |= {"vocab_size": 64, "eot_id": 63}


def inputs():
    rng = np.random.default_rng(0)
    return {
        "x_t": rng.normal(size=(3, 6)).astype(np.float32),
        "t": np.array([0, 400, 999], np.int32),
        "text_embedding": rng.normal(size=(3, 6)).astype(np.float32),
        "text_states": rng.normal(size=(3, 5, 8)).astype(np.float32),
        "text_mask": np.arange(5) < np.array([[2], [5], [3]]),
    }


def token_inputs():
    given = {k: v for k, v in inputs().items() if k not in ("text_states", "text_mask")}
    tokens = [[4, 63, 0, 0, 0], [4, 5, 6, 7, 63], [9, 8, 63, 0, 0]]
    return given | {"tokens": np.array(tokens, np.int32)}


@functools.cache
def build(trained=False):
    """(compiled predict(variables, given), variables): all weights random, nulls included."""
    prior = PriorTransformer(**SIZE, **(TRAINED if trained else {}))
    given = token_inputs() if trained else inputs()
    abstract = jax.eval_shape(lambda given: prior.init(jax.random.key(0), **given), given)
    rng = np.random.default_rng(1)
    fill = lambda p: rng.normal(size=p.shape).astype("f4") / p.shape[-1] ** 0.5  # noqa: E731
    return jax.jit(lambda v, given: prior.apply(v, **given)), jax.tree.map(fill, abstract)


def rows_that_change(first, second, trained=False):
    predict, variables = build(trained)
    return np.asarray(predict(variables, first) != predict(variables, second)).any(axis=1).tolist()


@pytest.mark.parametrize("scan_layers", [False, True])
def test_prediction_equals_that_recorded_from_diffusers(scan_layers):
    recorded = np.load(VECTORS)
    prior = PriorTransformer(**json.loads(str(recorded["size"])), scan_layers=scan_layers)
    prefix = "params/"
    flat = {k.removeprefix(prefix): recorded[k] for k in recorded if k.startswith(prefix)}
    params = trees.unflatten({k: v.astype(np.float32) for k, v in flat.items()})
    given = {k: recorded[k] for k in inputs()}
    got = jax.jit(lambda p, given: prior.apply({"params": p}, **given))(
        stack_layers(params) if scan_layers else params, given
    )
    error = np.abs(got - recorded["wanted"]).max() / np.abs(recorded["wanted"]).max()
    assert error < 1e-5


def parameters(prior, **shapes):
    given = {k: jax.ShapeDtypeStruct((1, *s), d) for k, (s, d) in shapes.items()}
    given |= {"x_t": jax.ShapeDtypeStruct((1, prior.embedding_dim), jnp.float32)}
    given |= {"t": jax.ShapeDtypeStruct((1,), jnp.int32)}
    abstract = jax.eval_shape(lambda given: prior.init(jax.random.key(0), **given), given)
    return trees.count(abstract)


@pytest.mark.parametrize(("null_text", "null"), [("none", 0), ("learned", 768 + 77 * 768)])
def test_karlos_size(null_text, null):
    """diffusers counts 1,022,030,080, with CLIP's mean and std, 768 numbers each."""
    prior = PriorTransformer(
        embedding_dim=768, width=2048, layers=20, heads=32, null_text=null_text
    )
    count = parameters(
        prior,
        text_embedding=((768,), jnp.float32),
        text_states=((77, 768), jnp.float32),
        text_mask=((77,), bool),
    )
    assert count == 1_022_030_080 - 2 * 768 + null


def test_the_papers_size_with_its_text_encoder():
    prior = PriorTransformer(
        embedding_dim=1024, width=2048, layers=24, heads=32, context_length=256,
        text_encoder="trained", null_text="none",
    )  # fmt: skip
    count = parameters(prior, text_embedding=((1024,), jnp.float32), tokens=((256,), jnp.int32))
    w, d, length, vocabulary = 2048, 1024, 256, 49408
    block = 4 * w * w + 4 * w + 8 * w * w + 5 * w + 4 * w  # attention, MLP, two norms
    encoder = vocabulary * w + length * w + 24 * block + 2 * w
    linear = lambda a, b: a * b + b  # noqa: E731
    inputs = 3 * linear(w, w) + 2 * linear(d, w) + (length + 4) * w + w
    assert count == encoder + inputs + 24 * block + 2 * w + linear(w, d)


def test_padding_of_the_text_is_never_seen():
    given, changed = inputs(), inputs()
    changed["text_states"][~changed["text_mask"]] += 5.0
    assert rows_that_change(given, changed) == [False, False, False]
    changed["text_states"][0, 1] += 1.0
    assert rows_that_change(given, changed) == [True, False, False]


@pytest.mark.parametrize("name", ["x_t", "t", "text_embedding", "text_states"])
def test_every_input_reaches_the_prediction_of_its_own_row(name):
    given, changed = inputs(), inputs()
    changed[name] = changed[name].copy()
    changed[name][1] = changed[name][1][::-1] if changed[name][1].ndim else 7
    assert rows_that_change(given, changed) == [False, True, False]


def test_a_dropped_text_is_gone_but_the_noised_embedding_is_not():
    drop = np.array([True, False, True])
    given = inputs() | {"drop_text": drop}
    other = inputs() | {"drop_text": drop}
    other["text_embedding"] = other["text_embedding"] + 3
    other["text_states"] = other["text_states"] + 3
    other["text_mask"] = np.ones_like(other["text_mask"])
    assert rows_that_change(given, other) == [False, True, False]
    moved = inputs() | {"drop_text": drop}
    moved["x_t"] = moved["x_t"] + 1
    moved["t"] = np.array([5, 400, 4], np.int32)
    assert rows_that_change(given, moved) == [True, True, True]
    assert rows_that_change(inputs(), given) == [True, False, True]


def test_nulls_learn_from_dropped_examples_only():
    predict, variables = build()

    gradients = jax.jit(jax.grad(lambda v, given: jnp.sum(predict(v, given) ** 2)))
    for drop, learns in (([False] * 3, False), ([True, False, False], True)):
        grads = gradients(variables, inputs() | {"drop_text": np.array(drop)})["params"]
        for name in ("null_text_embedding", "null_text_states"):
            assert bool((grads[name] != 0).any()) is learns


def test_a_trained_text_encoder_reads_tokens_and_can_be_dropped():
    given, changed = token_inputs(), token_inputs()
    changed["tokens"] = changed["tokens"].copy()
    changed["tokens"][2, 4] = 17  # after the end of text
    changed["tokens"][1, 0] = 17
    assert rows_that_change(given, changed, trained=True) == [False, True, False]
    drop = {"drop_text": np.array([False, True, False])}
    assert rows_that_change(given | drop, changed | drop, trained=True) == [False] * 3


def test_gradients_equal_finite_differences_in_float64(claim):
    prior = PriorTransformer(**SIZE, dtype=jnp.float64, param_dtype=jnp.float64)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        double = lambda a: jnp.asarray(a, "f8" if a.dtype == "f4" else a.dtype)  # noqa: E731
        variables = jax.tree.map(lambda a: double(np.asarray(a)), build()[1])
        given = jax.tree.map(double, inputs()) | {"drop_text": jnp.array([True, False, False])}
        direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), variables)

        @jax.jit
        @jax.value_and_grad
        def loss(step):  # along one direction through all parameters
            moved = jax.tree.map(lambda p, d: p + step * d, variables, direction)
            return jnp.sum(jnp.sin(prior.apply(moved, **given)))

        h = 1e-6
        (ahead, _), (behind, _), (_, got) = loss(h), loss(-h), loss(0.0)
    measured = float(ahead - behind) / (2 * h)
    what = "gradient of the prior (float64)"
    claim.near(what, "finite differences", float(got), measured, bound=1e-6)


def test_wrong_text_is_refused():
    def init(given, **options):
        given = jax.tree.map(jnp.asarray, given)
        PriorTransformer(**{**SIZE, **options}).init(jax.random.key(0), **given)

    given = inputs()
    without = {k: v for k, v in given.items() if k != "text_states"}
    drop = {"drop_text": np.array([True, False, False])}
    for arguments, options, message in (
        (given, {"context_length": 7}, "context_length is 7 but the text has 5 tokens"),
        (without, {}, "needs text_states and text_mask"),
        (given, TRAINED, "needs token ids"),
        (given | drop, {"null_text": "none"}, "no learned null text"),
        (given, {"null_text": "zero"}, "unknown null_text 'zero'"),
        (given, {"text_encoder": "t5"}, "unknown text_encoder 't5'"),
    ):
        with pytest.raises(UserError, match=message):
            init(arguments, **options)
