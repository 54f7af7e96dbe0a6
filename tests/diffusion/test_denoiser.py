import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from unclip_jax.diffusion import (
    DynamicThresholding,
    GaussianProcess,
    Guidance,
    PredictionType,
    StaticThresholding,
    make_denoiser,
    make_schedule,
)
from unclip_jax.errors import UserError


@pytest.fixture(scope="module")
def process():
    return GaussianProcess(make_schedule("cosine"))


@pytest.fixture(scope="module")
def noisy():
    return jax.random.normal(jax.random.key(0), (3, 4, 4, 2)), jnp.array([10, 500, 900])


def network(x_t, t, conditioning):
    """Any network with a learned variance: not linear in what it is given."""
    shift = conditioning["text"][:, None, None, :]
    mean = jnp.tanh(x_t + shift + t[:, None, None, None] / 1000)
    return jnp.concatenate([mean, jnp.sin(mean + shift)], axis=-1)


def text(value):
    return {"text": jnp.full((3, 2), value)}


def denoise(process, noisy, guidance=None, conditioning=None, **options):
    denoiser = make_denoiser(
        network,
        process,
        "epsilon",
        learned_variance=True,
        guidance=guidance,
        conditioning=conditioning,
        **options,
    )
    return denoiser(*noisy)


@pytest.mark.parametrize("prediction", PredictionType)
def test_x0_and_epsilon_make_up_x_t(process, noisy, prediction):
    x_t, t = noisy
    denoised = make_denoiser(lambda x, t, c: jnp.tanh(x), process, prediction)(x_t, t)
    np.testing.assert_allclose(
        process.corrupt(denoised.x0, t, denoised.epsilon), x_t, rtol=1e-5, atol=1e-5
    )
    raw = {PredictionType.X0: denoised.x0, PredictionType.EPSILON: denoised.epsilon}
    if prediction in raw:
        np.testing.assert_array_equal(raw[prediction], jnp.tanh(x_t))
    assert denoised.variance_fraction is None


@pytest.mark.parametrize("extra", [{}, {"interval": (0, 999)}, {"rescale": 0.0}])
def test_scale_1_is_no_guidance_bit_for_bit(process, noisy, extra):
    plain = denoise(process, noisy, conditioning=text(0.7))
    guided = denoise(process, noisy, Guidance(text(0.7), text(0.0), 1.0, **extra))
    for left, right in zip(plain, guided, strict=True):
        np.testing.assert_array_equal(left, right)


def test_guidance_formula_and_conditional_variance(process, noisy):
    cond, uncond = (denoise(process, noisy, conditioning=text(v)) for v in (0.7, -0.2))
    guided = denoise(process, noisy, Guidance(text(0.7), text(-0.2), jnp.float32(3.5)))
    expected = uncond.epsilon + 3.5 * (cond.epsilon - uncond.epsilon)
    np.testing.assert_allclose(guided.epsilon, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(guided.variance_fraction, cond.variance_fraction)


def test_guidance_is_the_same_in_every_prediction(process, noisy):
    """Guiding x0, epsilon or v of one model is one thing."""
    x_t, t = noisy

    def network_of(kind):
        def convert(x, t, shift):
            return process.convert(
                jnp.tanh(x + shift), PredictionType.EPSILON, PredictionType(kind), x, t
            )

        guidance = Guidance(jnp.full((3, 1, 1, 1), 0.5), jnp.zeros((3, 1, 1, 1)), 4.0)
        return make_denoiser(convert, process, kind, guidance=guidance)(x_t, t)

    epsilon, v, x0 = (network_of(kind).epsilon for kind in ("epsilon", "v", "x0"))
    np.testing.assert_allclose(v, epsilon, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x0, epsilon, rtol=1e-3, atol=1e-3)


def test_a_scale_for_each_example(process, noisy):
    each = denoise(process, noisy, Guidance(text(0.7), text(0.0), jnp.array([1.0, 2.0, 5.0])))
    for row, scale in enumerate([1.0, 2.0, 5.0]):
        one = denoise(process, noisy, Guidance(text(0.7), text(0.0), scale))
        np.testing.assert_allclose(each.epsilon[row], one.epsilon[row], rtol=1e-5, atol=1e-6)


def test_interval_includes_both_ends(process, noisy):
    plain = denoise(process, noisy, conditioning=text(0.7))
    guided = denoise(process, noisy, Guidance(text(0.7), text(0.0), 3.0))
    limited = denoise(process, noisy, Guidance(text(0.7), text(0.0), 3.0, interval=(10, 500)))
    np.testing.assert_array_equal(limited.epsilon[:2], guided.epsilon[:2])
    np.testing.assert_array_equal(limited.epsilon[2], plain.epsilon[2])


def test_rescale_restores_the_standard_deviation(process, noisy):
    cond = denoise(process, noisy, conditioning=text(0.7)).epsilon
    guided = denoise(process, noisy, Guidance(text(0.7), text(-0.7), 5.0)).epsilon
    full = denoise(process, noisy, Guidance(text(0.7), text(-0.7), 5.0, rescale=1.0)).epsilon
    half = denoise(process, noisy, Guidance(text(0.7), text(-0.7), 5.0, rescale=0.5)).epsilon
    for row in range(3):
        assert abs(np.std(guided[row]) / np.std(cond[row]) - 1) > 0.02
        np.testing.assert_allclose(np.std(full[row]), np.std(cond[row]), rtol=1e-5)
    np.testing.assert_allclose(half, (full + guided) / 2, rtol=1e-4, atol=1e-6)


def test_rescale_of_a_network_that_outputs_zeros(process, noisy):
    guidance = Guidance(text(0.7), text(0.0), 3.0, rescale=1.0)
    x_t, t = noisy
    denoiser = make_denoiser(lambda x, t, c: 0 * x, process, "epsilon", guidance=guidance)
    np.testing.assert_array_equal(denoiser(x_t, t).epsilon, 0)


def test_two_conditions_have_their_own_scales(process, noisy):
    none, image, both = (denoise(process, noisy, conditioning=text(v)) for v in (0.0, 0.4, 1.0))

    def guided(scale, intermediate_scale):
        guidance = Guidance(
            text(1.0),
            text(0.0),
            scale,
            intermediate=text(0.4),
            intermediate_scale=intermediate_scale,
        )
        return denoise(process, noisy, guidance)

    expected = (
        none.epsilon + 2.0 * (image.epsilon - none.epsilon) + 6.0 * (both.epsilon - image.epsilon)
    )
    np.testing.assert_allclose(guided(6.0, 2.0).epsilon, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(guided(1.0, 1.0).epsilon, both.epsilon)
    np.testing.assert_array_equal(guided(6.0, 2.0).variance_fraction, both.variance_fraction)
    # Equal scales: the intermediate condition no longer matters.
    equal = denoise(process, noisy, Guidance(text(1.0), text(0.0), 3.0))
    np.testing.assert_allclose(guided(3.0, 3.0).epsilon, equal.epsilon, rtol=1e-4, atol=1e-5)


def test_guidance_is_one_call_without_communication(process):
    """A batch sharded over devices stays there: the passes of an example are neighbours."""
    calls = []

    def counting(x_t, t, conditioning):
        calls.append(x_t.shape)
        return jnp.tanh(x_t + conditioning)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def run(x, t, guidance):
        return make_denoiser(counting, process, "v", guidance=guidance)(x, t)

    x = jax.device_put(jnp.ones((16, 4)), rows)
    t = jax.device_put(jnp.full(16, 5), rows)
    compiled = jax.jit(run).lower(x, t, Guidance(x, 0 * x, 2.0)).compile()
    assert calls == [(32, 4)]
    text = compiled.as_text()
    assert not any(
        op in text for op in ("all-gather", "all-to-all", "collective-permute", "all-red")
    )


def test_static_thresholding_rederives_epsilon(process, noisy):
    x_t, t = noisy
    denoiser = make_denoiser(
        lambda x, t, c: 3 * x, process, "x0", thresholding=StaticThresholding(0.5)
    )
    denoised = denoiser(x_t, t)
    np.testing.assert_array_equal(denoised.x0, np.clip(3 * np.asarray(x_t), -0.5, 0.5))
    np.testing.assert_allclose(
        process.corrupt(denoised.x0, t, denoised.epsilon), x_t, rtol=1e-5, atol=1e-6
    )


def test_dynamic_thresholding_against_numpy():
    x0 = np.random.default_rng(0).standard_normal((4, 6, 6, 3)).astype(np.float32)
    x0 *= np.array([0.1, 1, 3, 10], np.float32).reshape(4, 1, 1, 1)
    got = np.asarray(DynamicThresholding(quantile=0.9, limit=2.0)(jnp.asarray(x0)))
    np.testing.assert_array_equal(got[0], x0[0])  # within the limit: untouched
    for row in range(4):
        s = max(np.quantile(np.abs(x0[row]).astype(np.float64), 0.9), 2.0)
        np.testing.assert_allclose(
            got[row], np.clip(x0[row], -s, s) / s * 2.0, rtol=2e-5, atol=1e-6
        )


def test_mistakes_are_named(process, noisy):
    with pytest.raises(UserError, match="not both"):
        denoise(process, noisy, Guidance(text(1.0), text(0.0), 2.0), conditioning=text(1.0))
    with pytest.raises(UserError, match="differ in structure"):
        denoise(process, noisy, Guidance(text(1.0), {"text": None}, 2.0))
    with pytest.raises(UserError, match="needs an intermediate_scale"):
        denoise(process, noisy, Guidance(text(1.0), text(0.0), 2.0, intermediate=text(0.5)))
