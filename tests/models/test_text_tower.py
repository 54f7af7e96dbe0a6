"""The text tower: what each kind of tower sees of padding, and where its vector is read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.models import TextTower

SIZE = {"width": 16, "layers": 1, "heads": 2, "context_length": 6, "vocab_size": 32, "eot_id": 31}
TOKENS = jnp.array([[1, 2, 31, 0, 0, 0], [3, 4, 5, 6, 7, 31]])
KINDS = {
    "causal": {"causal": True},
    "masked": {"padding": "mask"},
    "learned": {"padding": "learned"},
}


@functools.cache
def build(kind):
    tower = TextTower(**SIZE, **KINDS[kind])
    abstract = jax.eval_shape(tower.init, jax.random.key(0), TOKENS)
    rng = np.random.default_rng(0)
    fill = lambda p: jnp.asarray(rng.normal(size=p.shape) / p.shape[-1] ** 0.5, "f4")  # noqa: E731
    variables = jax.tree.map(fill, abstract)
    return jax.jit(tower.apply), variables


@pytest.mark.parametrize("kind", list(KINDS))
def test_tokens_after_the_end_of_text_change_nothing_that_is_real(kind):
    apply, variables = build(kind)
    other = TOKENS.at[0, 3:].set(jnp.array([9, 31, 8]))
    a, b = apply(variables, TOKENS), apply(variables, other)
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.embedding, b.embedding)
    np.testing.assert_array_equal(a.states[a.mask], b.states[b.mask])


@pytest.mark.parametrize(
    ("kind", "backwards"), [("causal", False), ("masked", True), ("learned", True)]
)
def test_who_sees_later_tokens(kind, backwards):
    apply, variables = build(kind)
    other = TOKENS.at[1, 4].set(20)
    changed = np.abs(apply(variables, TOKENS).states - apply(variables, other).states)[1].max(
        axis=-1
    )
    assert (changed[4:] > 1e-4).all()
    assert (changed[:4] > 1e-4).all() == backwards
    assert backwards or not changed[:4].any()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_vector_is_read_at_the_end_of_text_or_at_the_last_position(kind):
    apply, variables = build(kind)
    with jax.disable_jit():  # compiled, each of the two may have its own copy of the last norm
        features = apply(variables, TOKENS)
    wanted = [5, 5] if kind == "learned" else [2, 5]
    for row, position in enumerate(wanted):
        np.testing.assert_array_equal(features.embedding[row], features.states[row, position])


def test_learned_padding_is_seen_by_real_tokens_and_only_where_there_is_padding():
    apply, variables = build("learned")
    params = variables["params"]
    moved = {**params, "padding_embedding": params["padding_embedding"].at[4, 0].add(1.0)}
    a, b = apply(variables, TOKENS).states, apply({"params": moved}, TOKENS).states
    assert float(jnp.abs(a - b)[0].max(axis=-1).min()) > 1e-4
    np.testing.assert_array_equal(a[1], b[1])
    assert "padding_embedding" not in build("masked")[1]["params"]
    assert "padding_embedding" not in build("causal")[1]["params"]


def test_shorter_arrays_are_taken_as_prefixes():
    apply, variables = build("causal")
    short, full = apply(variables, TOKENS[:1, :4]), apply(variables, TOKENS[:1])
    np.testing.assert_allclose(short.states, full.states[:, :4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(short.embedding, full.embedding, rtol=1e-5, atol=1e-6)


def test_overlong_texts_and_unknown_padding_are_refused():
    with pytest.raises(UserError, match="texts of 6 tokens do not fit context_length 4"):
        TextTower(**{**SIZE, "context_length": 4}).init(jax.random.key(0), TOKENS)
    with pytest.raises(UserError, match="unknown padding 'zeros'"):
        TextTower(**SIZE, padding="zeros").init(jax.random.key(0), TOKENS)
