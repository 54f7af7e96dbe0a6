"""Samplers with a perfect denoiser of Gaussian data: where they must arrive is known."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import (
    SAMPLERS,
    GaussianProcess,
    Moments,
    PredictionType,
    StaticThresholding,
    estimate_moments,
    initial_noise,
    make_denoiser,
    make_sampler,
    make_schedule,
    merge_moments,
    rescale_zero_terminal_snr,
    sample,
    spaced_timesteps,
)
from unclip_jax.errors import UserError

# 20160 divides by the step counts below, and is fine enough that the last step costs 1e-6.
FINE = make_schedule("cosine", 20161)
COSINE = make_schedule("cosine")
TO_DATA = sorted(set(SAMPLERS) - {"ddim_inversion"})


def fresh_keys(count):
    return jax.vmap(jax.random.key)(jnp.arange(count))


def options_of(name):
    moments = Moments(np.arange(1000), np.linspace(0.1, 1, 1000), 1)
    return {"moments": moments} if name == "analytic_dpm" else {}


def flow_errors(data, name, counts, schedule=FINE, **options):
    """Largest distance from the exact end of the probability-flow ODE, for each step count."""
    x_T = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    expected = data.flow(schedule, x_T)
    run = jax.jit(functools.partial(sample, denoiser=data.denoiser(schedule)))
    errors = []
    for count in counts:
        sampler = make_sampler(name, schedule, count, **options)
        x_0 = run(sampler, x_T=jnp.asarray(x_T), keys=fresh_keys(16))
        errors.append(np.abs(np.asarray(x_0) - expected).max())
    return np.array(errors)


@pytest.mark.parametrize(
    ("name", "options", "order", "error"),
    [
        ("ddim", {}, 1, 0.25),
        ("dpm++2m", {"max_weight": math.inf}, 2, 0.15),
        ("heun", {}, 2, 0.004),
        ("plms", {}, 3, 0.001),
    ],
)
def test_solver_order(gaussian_data, name, options, order, error, claim):
    """Twice the steps divide the error by 2^order; and it is small to begin with."""
    errors = flow_errors(gaussian_data, name, [21, 41, 81], **options)
    assert errors[0] < error
    measured = np.log2(errors[:-1] / errors[1:])
    what = f"{name} converges with order {order} (difference of orders)"
    claim.within(what, "exact flow of Gaussian data", abs(measured.min() - order), bound=0.25)


def test_dpm_solver_does_not_shoot_beyond_its_points(gaussian_data):
    """Held to that of even steps, the weight of the last x_0 halves the error, at least."""
    free = make_sampler("dpm++2m", COSINE, 20, max_weight=math.inf).table["w"]
    assert free.max() > 2
    held = make_sampler("dpm++2m", COSINE, 20).table["w"]
    np.testing.assert_array_equal(held, np.minimum(free, 0.5))
    counts = [11, 21, 41]
    as_published = flow_errors(gaussian_data, "dpm++2m", counts, max_weight=math.inf)
    assert np.all(flow_errors(gaussian_data, "dpm++2m", counts) < 0.5 * as_published)


@pytest.mark.parametrize("name", ["heun", "plms"])
def test_the_angle_is_safe_where_sigma_over_alpha_is_huge(gaussian_data, name):
    """Both coordinates follow one curve; only the angle can start where alpha is 5e-5."""
    mild = make_schedule("scaled_linear", 2001)
    angle = flow_errors(gaussian_data, name, [81], mild, coordinate="angle")
    sigma = flow_errors(gaussian_data, name, [81], mild, coordinate="sigma")
    assert max(angle[0], sigma[0]) < 0.02
    assert flow_errors(gaussian_data, name, [21], COSINE, coordinate="angle") < 0.01
    assert flow_errors(gaussian_data, name, [21], COSINE, coordinate="sigma") > 1


def draw(data, sampler, count=4096):
    keys = fresh_keys(count)
    x_T = initial_noise(keys, (len(data.mean),))
    run = jax.jit(functools.partial(sample, denoiser=data.denoiser(COSINE)))
    return np.asarray(run(sampler, x_T=x_T, keys=keys), np.float64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddpm", {"variance": "fixed_small"}),
        ("ddpm", {"variance": "fixed_large"}),
        ("ddim", {"eta": 0.5}),
        ("dpm++2m_sde", {}),
    ],
)
def test_stochastic_samplers_reach_mean_and_covariance(gaussian_data, name, options, claim):
    x_0 = draw(gaussian_data, make_sampler(name, COSINE, 200, **options))
    # Standard errors of 4096 draws: 0.023 for the mean, 2.2 % of the largest variance (2.25).
    what = f"{name}: {{}} of 4,096 samples (absolute)"
    mean_error = np.abs(x_0.mean(0) - gaussian_data.mean).max()
    claim.within(what.format("mean"), "Gaussian data", mean_error, bound=0.08)
    covariance_error = np.abs(np.cov(x_0.T) - gaussian_data.covariance).max()
    claim.within(what.format("covariance"), "Gaussian data", covariance_error, bound=0.17)


def test_analytic_variance_is_exact_in_four_steps(isotropic_data):
    """Where the fixed variances are far off. Moments come from data."""
    denoiser, process = isotropic_data.denoiser(COSINE), GaussianProcess(COSINE)
    data = isotropic_data.draw(np.random.default_rng(0), 8192).astype(np.float32)
    steps = spaced_timesteps(1000, 4)
    halves = [
        estimate_moments(process, denoiser, jnp.asarray(half), fresh_keys(4096), steps)
        for half in np.split(data, 2)
    ]
    moments = merge_moments(*halves)
    variance = isotropic_data.std[0] ** 2
    alpha_bars = COSINE.alpha_bars[steps]
    exact = (1 - alpha_bars) / (alpha_bars * variance + 1 - alpha_bars)
    np.testing.assert_allclose(moments.squared_epsilon, exact, rtol=0.05)
    assert moments.examples == 8192
    for eta in (1.0, 0.0):
        x_0 = draw(
            isotropic_data, make_sampler("analytic_dpm", COSINE, 4, moments=moments, eta=eta)
        )
        np.testing.assert_allclose(x_0.std(0), 0.6, rtol=0.04)
        np.testing.assert_allclose(x_0.mean(0), isotropic_data.mean, atol=0.04)
    fixed = draw(isotropic_data, make_sampler("ddpm", COSINE, 4)).std(0)
    assert np.all(fixed < 0.5)


def test_analytic_variance_is_bounded_by_the_range_of_data():
    """With nothing learned (m = 0), data in [-limit, limit] still bound the variance."""
    nothing = Moments(np.arange(1000), np.zeros(1000), 1)
    free = make_sampler("analytic_dpm", COSINE, 10, moments=nothing).table["std"]
    tight = make_sampler("analytic_dpm", COSINE, 10, moments=nothing, limit=1.0).table["std"]
    zero = make_sampler("analytic_dpm", COSINE, 10, moments=nothing, limit=0.0).table["std"]
    small = make_sampler("ddpm", COSINE, 10).table["std"]
    assert np.all(tight <= free)
    assert tight[0] < 0.9 * free[0] or tight[-2] < 0.9 * free[-2]
    np.testing.assert_allclose(zero, small, rtol=1e-6)


def test_learned_variance_of_unit_data_is_beta(isotropic_data):
    """For N(0, 1) data the exact reverse variance is beta, fraction 1; even in four steps."""
    data = type(isotropic_data)(np.zeros(2), np.ones(2), np.eye(2))
    x0_of = data.denoiser(COSINE)

    def network(x_t, t, conditioning):
        return jnp.concatenate([x0_of(x_t, t).x0, jnp.ones_like(x_t)], axis=-1)

    denoiser = make_denoiser(network, GaussianProcess(COSINE), "x0", learned_variance=True)
    sampler = make_sampler("ddpm", COSINE, 4, variance="learned_range")
    keys = fresh_keys(4096)
    # Stop before the last step, whose result is x_0 without its noise.
    x = jax.jit(lambda keys: sample(sampler[:-1], denoiser, initial_noise(keys, (2,)), keys))(keys)
    np.testing.assert_allclose(np.std(x, axis=0), 1, rtol=0.04)


def test_ddim_with_eta_1_is_ddpm(gaussian_data):
    ddpm = draw(gaussian_data, make_sampler("ddpm", COSINE, 20), count=8)
    ddim = draw(gaussian_data, make_sampler("ddim", COSINE, 20, eta=1.0), count=8)
    np.testing.assert_allclose(ddim, ddpm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", PredictionType)
def test_samples_do_not_depend_on_what_the_network_predicts(gaussian_data, prediction):
    x_T = initial_noise(fresh_keys(4), (3,))
    results = [
        sample(
            make_sampler("dpm++2m", COSINE, 10),
            gaussian_data.denoiser(COSINE, kind),
            x_T,
            fresh_keys(4),
        )
        for kind in (PredictionType.X0, prediction)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", TO_DATA)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_last_step_lands_on_x0(name, count):
    """alpha_bar = 1 at the end: what comes out is the last x_0, thresholded and without noise."""
    denoiser = make_denoiser(
        lambda x, t, c: 9.0 + 0 * x,
        GaussianProcess(COSINE),
        "x0",
        thresholding=StaticThresholding(0.5),
    )
    keys = fresh_keys(2)
    x_0 = sample(
        make_sampler(name, COSINE, count, **options_of(name)),
        denoiser,
        initial_noise(keys, (2, 2, 1)),
        keys,
    )
    np.testing.assert_array_equal(x_0, 0.5)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sample_does_not_depend_on_its_batch(name):
    """Row 2 of a batch of 4 is, bit for bit, what its key gives alone or in other company."""
    # t / 1024, a power of two: XLA's division rounds differently in vectors and scalars.
    denoiser = make_denoiser(
        lambda x, t, c: jnp.tanh(0.7 * x + t.reshape(-1, 1, 1) / 1024), GaussianProcess(COSINE), "v"
    )
    sampler = make_sampler(name, COSINE, 2, **options_of(name))

    def run(keys):
        return sample(sampler, denoiser, initial_noise(keys, (8, 8)), keys)

    # Op by op: compiled for two batch sizes, a product and a sum may or may not be fused into one
    # rounding. At one batch size the compiled function is the same.
    with jax.disable_jit():
        batch, alone = run(fresh_keys(4)), run(fresh_keys(4)[2:3])
    np.testing.assert_array_equal(batch[2], alone[0])
    run = jax.jit(run)
    batch, others = run(fresh_keys(4)), run(fresh_keys(9)[jnp.array([8, 7, 2, 6])])
    np.testing.assert_array_equal(batch[2], others[2])
    assert np.all(np.abs(batch - others).max((1, 2))[jnp.array([0, 1, 3])] > 0.1)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_steps_have_their_own_noise_in_any_part(gaussian_data, name):
    """A sampler cut in two, where it has no memory, is the whole."""
    sampler = make_sampler(name, COSINE, 6, **options_of(name))
    if sampler.stochastic and not sampler.memory_size:
        keys, denoiser = fresh_keys(4), gaussian_data.denoiser(COSINE)
        run = jax.jit(lambda part, x, keys: sample(part, denoiser, x, keys))
        x_T = initial_noise(keys, (3,))
        whole = run(sampler, x_T, fresh_keys(4))
        parts = run(sampler[3:], run(sampler[:3], x_T, fresh_keys(4)), fresh_keys(4))
        np.testing.assert_array_equal(parts, whole)
    assert sampler.table["index"].tolist() == list(range(len(sampler)))


def test_noise_differs_between_steps_and_examples():
    """Rows with x' = noise and nothing else."""
    sampler = make_sampler("ddpm", COSINE, 4)
    table = {**sampler.table, "x0": 0 * sampler.table["x0"], "x_t": 0 * sampler.table["x_t"]}
    table["std"] = np.ones(4, np.float32)
    noise_only = dataclasses.replace(sampler, table=table)
    denoiser = make_denoiser(lambda x, t, c: x, GaussianProcess(COSINE), "x0")
    zeros = jnp.zeros((3, 5))
    noises = [sample(noise_only[i : i + 1], denoiser, zeros, fresh_keys(3)) for i in range(4)]
    assert len(np.unique(np.stack(noises))) == 4 * 3 * 5


def test_inversion_finds_the_noise_that_gives_an_image(gaussian_data):
    """The probability-flow ODE backwards, then DDIM forwards: reconstruction."""
    x_0 = jnp.asarray(gaussian_data.draw(np.random.default_rng(2), 16), jnp.float32)
    denoiser = gaussian_data.denoiser(COSINE)
    run = jax.jit(functools.partial(sample, denoiser=denoiser))

    def round_trip(count, iterations):
        inversion = make_sampler("ddim_inversion", COSINE, count, iterations=iterations)
        x_T = run(inversion, x_T=x_0, keys=fresh_keys(16))
        back = run(make_sampler("ddim", COSINE, count), x_T=x_T, keys=fresh_keys(16))
        return np.abs(back - x_0).max(), np.asarray(x_T)

    errors = [round_trip(count, 1)[0] for count in (50, 200)]
    assert errors[1] < 0.1
    assert errors[1] < 0.4 * errors[0]
    error, x_T = round_trip(50, 6)
    assert error < 1e-4
    # It is noise again: the flow's own answer, up to the solver's first-order error.
    np.testing.assert_allclose(gaussian_data.flow(COSINE, x_T), x_0, atol=0.3)


def test_another_schedule_does_not_compile_again():
    traces = []

    def network(x_t, t, conditioning):
        traces.append(1)
        return x_t

    denoiser = make_denoiser(network, GaussianProcess(COSINE), "v")
    run = jax.jit(functools.partial(sample, denoiser=denoiser))
    for spacing in ("8", "4,4", "ddim8"):
        run(make_sampler("ddim", COSINE, spacing), x_T=jnp.ones((2, 3)), keys=fresh_keys(2))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "calls"), [("ddpm", 9), ("ddim", 9), ("dpm++2m", 9), ("heun", 17), ("plms", 10)]
)
def test_a_sampler_is_as_long_as_its_network_calls(name, calls):
    assert len(make_sampler(name, COSINE, 9)) == calls


@pytest.mark.parametrize("name", sorted(set(TO_DATA) - {"analytic_dpm"}))
def test_zero_terminal_snr_can_be_sampled(gaussian_data, name):
    schedule = rescale_zero_terminal_snr(make_schedule("linear"))
    x_0 = sample(
        make_sampler(name, schedule, 30),
        gaussian_data.denoiser(schedule, PredictionType.V),
        initial_noise(fresh_keys(64), (3,)),
        fresh_keys(64),
    )
    assert np.isfinite(x_0).all()
    np.testing.assert_allclose(np.mean(x_0, axis=0), gaussian_data.mean, atol=0.6)


def test_mistakes_are_named(gaussian_data):
    zero_snr = rescale_zero_terminal_snr(COSINE)
    some = Moments(np.array([0, 500]), np.ones(2), 1)
    for call, message in [
        (lambda: make_sampler("ddmp", COSINE, 5), "did you mean 'ddpm'"),
        (lambda: make_sampler("ddpm", COSINE, 5, eta=1.0), "has no option 'eta'"),
        (lambda: make_sampler("ddpm", COSINE, 5, variance="big"), "unknown variance"),
        (lambda: make_sampler("ddim", COSINE, 5, eta=2.0), "between 0 and 1"),
        (lambda: make_sampler("ddim", COSINE, 1001), "cannot visit 1001"),
        (lambda: make_sampler("ddim_inversion", COSINE, 5, iterations=0), "at least one"),
        (lambda: make_sampler("ddim_inversion", zero_snr, 5), "zero terminal SNR"),
        (lambda: make_sampler("heun", COSINE, 5, coordinate="angel"), "did you mean 'angle'"),
        (lambda: make_sampler("heun", zero_snr, 5, coordinate="sigma"), "zero terminal SNR"),
        (lambda: make_sampler("analytic_dpm", COSINE, 5), "needs the option 'moments'"),
        (lambda: make_sampler("analytic_dpm", COSINE, 5, moments=some), "lack timestep"),
        (
            lambda: make_sampler("analytic_dpm", zero_snr, 1000, **options_of("analytic_dpm")),
            "zero",
        ),
        (
            lambda: make_sampler("analytic_dpm", COSINE, 5, moments=some, eta=-1.0),
            "between 0 and 1",
        ),
        (lambda: merge_moments(some, Moments(np.array([0]), np.ones(1), 1)), "same timesteps"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
    learned = make_sampler("ddpm", COSINE, 5, variance="learned_range")
    with pytest.raises(UserError, match="learned_variance=True"):
        sample(learned, gaussian_data.denoiser(COSINE), jnp.ones((1, 3)), fresh_keys(1))
