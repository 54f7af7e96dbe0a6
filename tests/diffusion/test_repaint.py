"""RePaint: the walk back and forth, what is put back, and that it agrees with the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.core import rng
from unclip_jax.diffusion import (
    Denoised,
    Known,
    initial_noise,
    make_sampler,
    make_schedule,
    repaint,
    repaint_sampler,
)
from unclip_jax.errors import UserError

SCHEDULE = make_schedule("cosine", 1000)


def walk(sampler="ddpm", steps=6, **options):
    return repaint_sampler(make_sampler(sampler, SCHEDULE, steps), SCHEDULE, **options)


def test_stretches_are_walked_several_times_and_noise_leads_back():
    t = make_sampler("ddpm", SCHEDULE, 6).table["t"]
    found = walk(jump=2, resamples=3).table
    order = [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5]
    np.testing.assert_array_equal(found["t"], t[order])
    np.testing.assert_array_equal(found["index"], np.arange(18))
    levels = np.append(SCHEDULE.alpha_bars[t], 1.0)
    for row, (now, following) in enumerate(zip(order, [*order[1:], 6], strict=True)):
        arrived, wanted = levels[now + 1], levels[following]
        np.testing.assert_allclose(found["back_x"][row] ** 2, wanted / arrived, rtol=1e-5)
        total = found["back_x"][row] ** 2 * (1 - arrived) + found["back_noise"][row] ** 2
        np.testing.assert_allclose(total, 1 - wanted, rtol=1e-4, atol=1e-7)


def test_one_walk_is_the_samplers_own():
    plain = make_sampler("ddim", SCHEDULE, 7)
    found = walk("ddim", 7, jump=3, resamples=1)
    for name, column in plain.table.items():
        np.testing.assert_array_equal(found.table[name], column)
    np.testing.assert_array_equal(found.table["back_noise"], np.zeros(7))


def correlated(correlation):
    """The exact denoiser of two standard normal values with a correlation."""
    covariance = jnp.array([[1.0, correlation], [correlation, 1.0]])

    def denoise(x_t, t):
        alpha_bar = jnp.asarray(SCHEDULE.alpha_bars, jnp.float32)[t[0]]
        noisy = alpha_bar * covariance + (1 - alpha_bar) * jnp.eye(2)
        x0 = jnp.sqrt(alpha_bar) * x_t @ jnp.linalg.solve(noisy, covariance)
        return Denoised(x0, (x_t - jnp.sqrt(alpha_bar) * x0) / jnp.sqrt(1 - alpha_bar))

    return denoise


def fill(sampler, count=4000, known=1.5):
    keys = rng.example_keys(jax.random.key(0), "repaint", 0, count)
    given = Known(jnp.full((1, 2), known), jnp.array([[0.0, 1.0]]))
    run = jax.jit(lambda s: repaint(s, correlated(0.9), initial_noise(keys, (2,)), keys, given))
    return np.asarray(run(sampler))


def test_the_known_part_is_kept_and_the_missing_part_follows_it():
    """Given the first value, the second has mean 0.9 * 1.5: resampling gets there."""
    once, often = fill(walk(steps=50, resamples=1)), fill(walk(steps=50, jump=5, resamples=10))
    np.testing.assert_array_equal(often[:, 0], np.full(4000, 1.5, np.float32))
    np.testing.assert_array_equal(once[:, 0], often[:, 0])
    wanted = 0.9 * 1.5
    assert abs(often[:, 1].mean() - wanted) < 0.1
    assert abs(often[:, 1].mean() - wanted) < abs(once[:, 1].mean() - wanted)


def test_samplers_with_a_memory_are_refused():
    with pytest.raises(UserError, match="use ddpm or ddim"):
        walk("dpm++2m")
    with pytest.raises(UserError, match="at least 1"):
        walk(jump=0)
