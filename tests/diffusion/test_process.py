import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    GaussianProcess,
    PredictionType,
    Variance,
    make_schedule,
    rescale_zero_terminal_snr,
)
from unclip_jax.diffusion.process import posterior_table
from unclip_jax.errors import UserError

X0, EPSILON, V = PredictionType.X0, PredictionType.EPSILON, PredictionType.V


@pytest.fixture(scope="module")
def process():
    return GaussianProcess(make_schedule("cosine"))


@pytest.fixture(scope="module")
def example():
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 1))
    return x0, noise, jnp.array([3, 500, 990])


def test_corrupt_in_float64(process, example):
    x0, noise, t = example
    alpha_bar = process.schedule.alpha_bars[np.asarray(t)].reshape(3, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * np.asarray(x0, np.float64)
    expected += np.sqrt(1 - alpha_bar) * np.asarray(noise, np.float64)
    np.testing.assert_allclose(process.corrupt(x0, t, noise), expected, rtol=1e-6, atol=1e-7)


def test_one_step_chain_gives_the_same_marginal():
    """Adding noise beta_t step after step has the mean and variance that `corrupt` jumps to."""
    process = GaussianProcess(make_schedule("linear", 40))
    mean, variance = 1.0, 0.0
    for beta in process.schedule.betas:
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    one, t = jnp.ones((1, 1)), jnp.array([39])
    np.testing.assert_allclose(process.corrupt(one, t, 0 * one), mean, rtol=1e-6)
    np.testing.assert_allclose(process.corrupt(0 * one, t, one) ** 2, variance, rtol=1e-6)


@pytest.mark.parametrize("source", PredictionType)
@pytest.mark.parametrize("target", PredictionType)
def test_conversions(process, example, source, target):
    """Every prediction, read as any other, is what that other is by definition."""
    x0, noise, t = example
    alpha_bar = process.schedule.alpha_bars[np.asarray(t)].reshape(3, 1, 1, 1)
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    x0_64, noise_64 = np.asarray(x0, np.float64), np.asarray(noise, np.float64)
    truth = {X0: x0_64, EPSILON: noise_64, V: alpha * noise_64 - sigma * x0_64}
    x_t = jnp.asarray(alpha * x0_64 + sigma * noise_64, jnp.float32)
    given = jnp.asarray(truth[source], jnp.float32)
    converted = process.convert(given, source, target, x_t, t)
    # Reading x0 from epsilon divides by alpha = 0.015 at t = 990; epsilon from x0 by 0.017 at 3.
    np.testing.assert_allclose(converted, truth[target], rtol=2e-6, atol=2e-5)


def test_posterior_is_gaussian_conditioning(process, claim):
    """Condition the joint Gaussian of (x_{t-1}, x_t) given x_0 on x_t, without the closed form."""
    schedule, t = process.schedule, np.array([1, 300, 700])
    x0, x_t = np.array([0.3, -0.8, 0.5]), np.array([0.1, 0.4, -1.2])
    posterior = process.posterior(
        jnp.asarray(x0, jnp.float32)[:, None],
        jnp.asarray(x_t, jnp.float32)[:, None],
        jnp.asarray(t),
    )
    for i, step in enumerate(t):
        prev, beta = schedule.alpha_bars[step - 1], schedule.betas[step]
        # x_{t-1} = sqrt(prev) x0 + n1, x_t = sqrt(1 - beta) x_{t-1} + n2
        loading = np.array(
            [[np.sqrt(1 - prev), 0], [np.sqrt((1 - beta) * (1 - prev)), np.sqrt(beta)]]
        )
        covariance = loading @ loading.T
        means = np.array([np.sqrt(prev), np.sqrt((1 - beta) * prev)]) * x0[i]
        slope = covariance[0, 1] / covariance[1, 1]
        mean = means[0] + slope * (x_t[i] - means[1])
        variance = covariance[0, 0] - slope * covariance[0, 1]
        source = "Gaussian conditioning in float64"
        claim.near("posterior mean", source, posterior.mean[i, 0], mean, bound=1e-5)
        got = posterior.log_variance[i, 0]
        claim.near("posterior log variance", source, got, np.log(variance), bound=1e-5)


def test_published_variances(process, claim):
    """The constants of diffusers' UnCLIPScheduler tests."""
    zeros = jnp.zeros((3, 1))
    small = process.reverse(zeros, zeros, jnp.array([0, 487, 999]), Variance.FIXED_SMALL)
    source = "published constants of UnCLIPScheduler"
    std, known = np.exp(0.5 * small.log_variance[1:, 0]), [0.0549625, 0.9994987]
    claim.near("fixed_small standard deviation", source, std, known, bound=1e-6)
    # A raw network value of .5 is the fraction .75.
    learned = process.reverse(
        zeros, zeros, jnp.array([1, 487, 999]), Variance.LEARNED_RANGE, zeros + 0.75
    )
    # They come from float32 arithmetic, which is 8.4e-6 off at step 1 and the last digit at 999.
    known = [-10.1712790, -5.7998052, -0.0010011]
    np.testing.assert_allclose(learned.log_variance[:, 0], known, rtol=1e-5)
    claim.near("learned_range log variance", source, learned.log_variance[:, 0], known, bound=1e-5)


def test_fixed_large_is_beta_but_for_step_0(process):
    zeros, t = jnp.zeros((3, 1)), jnp.array([0, 1, 999])
    large = process.reverse(zeros, zeros, t, Variance.FIXED_LARGE).log_variance[:, 0]
    betas = process.schedule.betas
    np.testing.assert_allclose(np.exp(large[1:]), betas[np.array([1, 999])], rtol=1e-5)
    posterior = process.posterior(zeros, zeros, jnp.array([1, 1, 1])).log_variance[0, 0]
    assert large[0] == posterior


def test_last_step_returns_x0(process):
    table = posterior_table(process.schedule)
    assert (table.x0[0], table.x_t[0]) == (pytest.approx(1), 0)


def test_zero_terminal_snr_refuses_epsilon_only():
    process = GaussianProcess(rescale_zero_terminal_snr(make_schedule("linear", 20)))
    x, t = jnp.ones((1, 2)), jnp.array([19])
    with pytest.raises(UserError, match="zero terminal SNR"):
        process.convert(x, EPSILON, X0, x, t)
    # All noise: epsilon is x_t, v is -x_0.
    np.testing.assert_array_equal(process.convert(3 * x, X0, EPSILON, x, t), x)
    np.testing.assert_array_equal(process.convert(3 * x, V, X0, x, t), -3 * x)
    assert np.isfinite(posterior_table(process.schedule).log_variance).all()


def test_learned_variance_needs_a_fraction(process):
    x = jnp.ones((1, 2))
    with pytest.raises(UserError, match="learned_variance=True"):
        process.reverse(x, x, jnp.array([3]), Variance.LEARNED_RANGE)
