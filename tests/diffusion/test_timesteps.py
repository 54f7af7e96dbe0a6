import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    importance_weights,
    quartile_means,
    quartile_sums,
    sample_important_timesteps,
    sample_timesteps,
    update_second_moments,
)
from unclip_jax.errors import UserError


def some_keys(count):
    """Fresh keys: a slice of used ones counts as reuse."""
    return jax.vmap(jax.random.key)(jnp.arange(count))


def test_uniform_covers_all_steps_evenly():
    t = np.asarray(sample_timesteps(some_keys(4000), 8))
    assert t.dtype == np.int32
    # 500 expected in each; 21 is the standard deviation.
    np.testing.assert_allclose(np.bincount(t, minlength=8), 500, atol=90)


def test_a_draw_depends_on_its_own_key_only():
    t = sample_timesteps(some_keys(6), 1000)
    np.testing.assert_array_equal(sample_timesteps(some_keys(4)[2:4], 1000), t[2:4])


def test_stratified_puts_one_draw_in_each_part():
    t = np.asarray(sample_timesteps(some_keys(100), 1000, "stratified"))
    np.testing.assert_array_equal(t // 10, np.arange(100))
    assert len(np.unique(t % 10)) > 5


def test_stratified_lowers_the_variance_of_the_mean():
    """As seen in the mean of t over batches of 20."""

    def spread(kind):
        batches = some_keys(800).reshape(40, 20)
        return jax.vmap(lambda keys: sample_timesteps(keys, 1000, kind).mean())(batches).std()

    assert spread("stratified") < 0.1 * spread("uniform")


def test_importance_draws_in_proportion():
    weights = jnp.array([1.0, 0.0, 3.0, 6.0, 0.0])
    t, correction = sample_important_timesteps(some_keys(4000), weights)
    counts = np.bincount(np.asarray(t), minlength=5)
    assert counts[1] == counts[4] == 0
    np.testing.assert_allclose(counts[[0, 2, 3]] / 4000, [0.1, 0.3, 0.6], atol=0.03)
    # 1 / (T p_t)
    expected = 1 / (5 * np.array([0.1, 1, 0.3, 0.6, 1]))
    np.testing.assert_allclose(correction, expected[np.asarray(t)], rtol=1e-5)


def test_importance_keeps_the_mean_loss_unbiased():
    losses = jnp.array([8.0, 2.0, 1.0, 0.5])
    t, correction = sample_important_timesteps(some_keys(4000), importance_weights(losses**2))
    weighted = correction * losses[t]
    np.testing.assert_allclose(weighted.mean(), losses.mean(), rtol=0.01)
    # Drawn in proportion to the loss, every draw gives nearly the mean: hardly any variance.
    assert weighted.std() < 0.05 * losses[t].std()


def test_importance_weights_keep_a_uniform_share():
    weights = importance_weights(jnp.array([9.0, 0.0, 1.0, 0.0]), uniform=0.2)
    np.testing.assert_allclose(weights, [0.65, 0.05, 0.25, 0.05], rtol=1e-6)


def test_second_moments_follow_the_losses():
    moments = jnp.array([1.0, 1.0, 1.0])
    new = update_second_moments(moments, jnp.array([2, 0, 2]), jnp.array([1.0, 3.0, 5.0]), 0.5)
    # Step 0 moves half of the way to 9; step 2, seen twice, three quarters to (1 + 25) / 2.
    np.testing.assert_allclose(new, [5.0, 1.0, 10.0], rtol=1e-6)


def test_quartiles():
    t = jnp.array([0, 249, 250, 499, 999, 750])
    values = jnp.array([1.0, 3.0, 10.0, 20.0, 7.0, jnp.inf])
    valid = jnp.array([True, True, True, True, True, False])
    reduced = quartile_sums({"loss": values}, t, 1000, valid)
    np.testing.assert_array_equal(reduced["loss"].sums, [4, 30, 0, 7])
    np.testing.assert_array_equal(reduced["loss"].counts, [2, 2, 0, 1])
    np.testing.assert_array_equal(quartile_means(reduced)["loss"], [2, 15, np.nan, 7])


def test_quartile_sums_add_up_over_microbatches():
    t, values = jnp.arange(0, 1000, 40), jnp.arange(25.0)
    whole = quartile_sums({"a": values}, t, 1000)["a"]
    parts = [quartile_sums({"a": values[s]}, t[s], 1000)["a"] for s in (slice(7), slice(7, 25))]
    np.testing.assert_array_equal(whole.sums, parts[0].sums + parts[1].sums)
    np.testing.assert_array_equal(whole.counts, parts[0].counts + parts[1].counts)


def test_unknown_kind_is_named():
    with pytest.raises(UserError, match="did you mean 'stratified'"):
        sample_timesteps(some_keys(2), 10, "stratify")
