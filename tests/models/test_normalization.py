"""Group norm: both formulations against float64, with large means, in 16 bits, and backwards."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from unclip_jax.errors import UserError
from unclip_jax.models.normalization import GroupNorm, group_norm, resolve_formulation

FORMULATIONS = ("channel_sums", "grouped")
GROUPS, EPS = 3, 1e-5


def arguments(mean=0.0, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(mean, 1.0, (2, 5, 4, 12)) + rng.normal(0, 0.5, 12)
    return x.astype(dtype), rng.normal(size=(1, 12)), rng.normal(size=(1, 12))


def by_definition(x, scale, bias):
    """Loops over examples and groups in float64."""
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    size = x.shape[-1] // GROUPS
    for example in range(x.shape[0]):
        for start in range(0, x.shape[-1], size):
            block = x[example, :, :, start : start + size]
            normal = (block - block.mean()) / np.sqrt(block.var() + EPS)
            y[example, :, :, start : start + size] = normal
    return y * scale[:, None, None, :] + bias[:, None, None, :]


def run(x, scale, bias, formulation):
    scale, bias = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
    return group_norm(jnp.asarray(x), scale, bias, GROUPS, EPS, formulation=formulation)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 2e-6), (1e3, 4e-4), (1e4, 4e-3)])
def test_equals_the_definition(formulation, mean, tolerance, claim):
    """Tolerances are a few units in the last place of the mean, which x itself carries.

    The variance by E[x^2] - E[x]^2 would be off by 10 % at mean 1e3 and useless at 1e4.
    """
    x, scale, bias = arguments(mean)
    wanted = by_definition(x, scale, bias)
    error = np.abs(np.asarray(run(x, scale, bias, formulation)) - wanted).max()
    what = f"group norm of values around {mean:g} (absolute)"
    claim.within(what, "two passes in float64", error, bound=tolerance)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_statistics_of_16_bit_activations_are_float32(formulation):
    x, scale, bias = arguments(8.0, jnp.bfloat16)
    got = run(x, scale, bias, formulation)
    wanted = by_definition(x, scale, bias)
    assert got.dtype == jnp.bfloat16
    error = np.abs(np.asarray(got, np.float64) - wanted)
    assert (error <= 2**-8 * np.abs(wanted) + 1e-5).all()  # only the result was rounded


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_gradients_equal_finite_differences(formulation):
    """Of a row of scales for all examples, and of a row of biases for each."""
    with jax.enable_x64(True):
        x, scale, bias = (jnp.asarray(v, jnp.float64) for v in arguments(dtype=np.float64))
        bias = jnp.concatenate([bias, -bias])
        weights = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

        def loss(x, scale, bias):
            y = group_norm(x, scale, bias, GROUPS, EPS, formulation=formulation)
            return (weights * y).sum()

        check_grads(loss, (x, scale, bias), order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


def plain(x, scale, bias):
    """The definition in jax, for jax's own derivative of it."""
    groups = x.reshape(*x.shape[:3], GROUPS, -1)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    normal = centred / jnp.sqrt(jnp.square(centred).mean((1, 2, 4), keepdims=True) + EPS)
    return normal.reshape(x.shape) * scale[:, None, None] + bias[:, None, None]


@partial(jax.jit, static_argnums=0)
def gradients(function, weights, *arguments):
    return jax.vjp(function, *arguments)[1](weights)


ROWS = {"shared": (1, 1), "each its own": (2, 2), "own scales": (2, 1), "own biases": (1, 2)}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 3e-6), ("bfloat16", 2**-8)]
)
def test_gradients_equal_those_of_the_plain_formula(formulation, dtype, tolerance, rows):
    """Against float64 at the same rounded arguments, relative to the largest entry; of 16-bit
    activations only the gradient that is handed on is rounded."""
    draw = np.random.default_rng(3)
    with jax.enable_x64(True):
        x = jnp.asarray(arguments(mean=2.0)[0], dtype)
        weights = jnp.asarray(draw.normal(size=x.shape), dtype)
        high = jnp.float64 if dtype == "float64" else jnp.float32
        scale, bias = (jnp.asarray(draw.normal(size=(n, 12)), high) for n in ROWS[rows])
        normalise = partial(group_norm, groups=GROUPS, eps=EPS, formulation=formulation)
        found = gradients(normalise, weights, x, scale, bias)
        exact = [jnp.asarray(v, jnp.float64) for v in (x, scale, bias, weights)]
        wanted = gradients(plain, exact[3], *exact[:3])
        for got, right, given in zip(found, wanted, (x, scale, bias), strict=True):
            assert (got.dtype, got.shape) == (given.dtype, given.shape)
            error = jnp.abs(got.astype(jnp.float64) - right).max()
            assert error <= tolerance * jnp.abs(right).max()


def test_modulation_is_scale_and_shift_after_the_norm():
    x, scale, bias = arguments()
    rng = np.random.default_rng(2)
    gain, shift = rng.normal(size=(2, 2, 12)).astype(np.float32)
    params = {"params": {"scale": jnp.asarray(scale[0]), "bias": jnp.asarray(bias[0])}}
    got = GroupNorm(GROUPS).apply(params, x, modulation=(gain, shift))
    wanted = by_definition(x, scale, bias) * (1 + gain[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_constant_map_stays_finite_in_both_directions():
    x = jnp.full((1, 4, 4, 6), 3.0)
    scale, bias = jnp.ones((1, 6)), jnp.zeros((1, 6))
    for formulation in FORMULATIONS:
        function = lambda x, f=formulation: group_norm(  # noqa: E731
            x, scale, bias, 2, formulation=f
        )
        np.testing.assert_allclose(function(x), 0.0, atol=1e-4)
        assert jnp.isfinite(jax.grad(lambda x, f=function: (f(x) ** 2).sum())(x)).all()


def test_the_formulation_depends_on_the_backend(monkeypatch):
    assert resolve_formulation("auto") == "channel_sums"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert resolve_formulation("auto") == "grouped"
    assert resolve_formulation("channel_sums") == "channel_sums"


def test_mistakes_have_clear_errors():
    x, scale, bias = arguments()
    with pytest.raises(UserError, match="5 groups do not divide 12 channels"):
        group_norm(x, scale, bias, 5)
    with pytest.raises(UserError, match="unknown group norm formulation 'welford'"):
        group_norm(x, scale, bias, GROUPS, formulation="welford")
