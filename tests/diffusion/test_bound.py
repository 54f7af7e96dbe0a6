import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    Denoised,
    GaussianProcess,
    Variance,
    make_schedule,
    respace,
    variational_bound,
)
from unclip_jax.diffusion.bound import (
    discretized_log_likelihood,
    gaussian_log_density,
    kl_divergence,
    prior_term,
)
from unclip_jax.diffusion.process import Gaussian


def gaussian(mean, std):
    mean = jnp.asarray(mean, jnp.float32)
    return Gaussian(mean, jnp.full_like(mean, 2 * math.log(std)))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.9, 0.01), (-1.3, 0.2), (3.0, 0.1)])
def test_the_levels_share_out_all_the_mass(mean, std):
    levels = jnp.linspace(-1, 1, 256)
    mass = jnp.exp(discretized_log_likelihood(levels, gaussian(mean + 0 * levels, std), 256))
    np.testing.assert_allclose(mass.sum(), 1, rtol=2e-4)


def test_discretized_likelihood_in_float64(claim):
    def mass(x, mean, std):
        def below(z):
            return 0.5 * math.erfc(-(z - mean) / std / math.sqrt(2))

        upper = 1.0 if x > 0.999 else below(x + 1 / 255)
        lower = 0.0 if x < -0.999 else below(x - 1 / 255)
        return math.log(upper - lower)

    for level, mean, std in [(128, 0.1, 0.3), (0, -0.8, 0.2), (255, 0.7, 0.5), (40, -0.5, 0.05)]:
        x = level / 127.5 - 1
        got = discretized_log_likelihood(jnp.full((1,), x), gaussian([mean], std), 256)
        what = "likelihood of 8-bit pixels"
        claim.near(what, "erfc in float64", got[0], mass(x, mean, std), bound=2e-4)


@pytest.mark.parametrize("side", [-1, 1])
def test_far_tails_have_finite_likelihood_and_gradient(side):
    """Far above and far below all levels, where the mass rounds to 0 and its complement to 1."""
    x = jnp.linspace(-side, side, 9)

    def total(mean):
        return discretized_log_likelihood(x, gaussian(mean, 0.05), 256).sum()

    value, gradient = jax.value_and_grad(total)(jnp.full(9, 5.0 * side))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    # All the mass of a bin is at its edge nearest to the mean, where the density falls as the
    # distance by the variance. The nearest level's bin is open: all the mass is in it already.
    edge = np.linspace(-side, side, 9)[:-1] + side / 255
    np.testing.assert_allclose(gradient[:-1], (edge - 5.0 * side) / 0.05**2, rtol=2e-3)
    assert gradient[-1] == 0


def test_kl_by_quadrature():
    grid = np.linspace(-8, 8, 4001)

    def density(mean, std):
        return np.exp(-0.5 * ((grid - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))

    p, q = density(0.3, 0.5), density(-0.2, 0.9)
    expected = np.trapezoid(p * np.log(p / q), grid)
    got = kl_divergence(gaussian([0.3], 0.5), gaussian([-0.2], 0.9))
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)
    points = jnp.asarray(grid[::500], jnp.float32)
    log_density = gaussian_log_density(points, gaussian(0 * points + 0.3, 0.5))
    np.testing.assert_allclose(log_density, np.log(p[::500]), rtol=1e-5)


def test_bound_of_unit_gaussian_data_is_its_likelihood():
    """For N(0, 1) data each reverse step is Gaussian with variance beta, so the bound is tight.

    The chain starts from N(0, I), which is also exact; so prior + terms is -log N(x_0; 0, 1).
    """
    process = GaussianProcess(respace(make_schedule("cosine"), np.arange(0, 1000, 50)))
    alpha_bars = jnp.asarray(make_schedule("cosine").alpha_bars, jnp.float32)

    def denoiser(x_t, t):
        x0 = jnp.sqrt(alpha_bars[t])[:, None] * x_t
        return Denoised(x0, x_t, jnp.ones_like(x_t))

    value = np.array([0.3, 1.7])
    x0 = jnp.repeat(jnp.asarray(value, jnp.float32)[:, None], 2000, axis=1)
    bound = jax.jit(
        lambda keys: variational_bound(
            process, denoiser, x0, keys, variance=Variance.LEARNED_RANGE, num_levels=None
        )
    )(jax.random.split(jax.random.key(0), 2))
    expected = (0.5 * value**2 + 0.5 * np.log(2 * np.pi)) / np.log(2)
    # 2000 values are averaged; one has a standard deviation of about 1.5 bits.
    np.testing.assert_allclose(bound.total, expected, atol=0.12)
    assert bound.terms.shape == (20, 2)
    np.testing.assert_allclose(bound.total, bound.prior + bound.terms.sum(0), rtol=1e-6)


def test_prior_term_closed_form():
    process = GaussianProcess(respace(make_schedule("linear"), np.arange(300)))
    alpha_bar = process.schedule.alpha_bars[-1]
    assert 0.3 < alpha_bar < 0.5
    x0 = jnp.full((1, 4), 0.7)
    expected = 0.5 * (alpha_bar * 0.49 - alpha_bar - np.log(1 - alpha_bar)) / np.log(2)
    np.testing.assert_allclose(prior_term(process, x0)[0], expected, rtol=1e-5)
