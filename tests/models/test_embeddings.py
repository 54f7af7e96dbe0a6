"""Sinusoids against their definition, element by element in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.models.embeddings import TimeEmbedding, timestep_embedding


@pytest.mark.parametrize(("dim", "max_period"), [(2, 10000.0), (12, 10000.0), (320, 100.0)])
def test_equals_the_definition(dim, max_period):
    half, steps = dim // 2, [0, 1, 487, 999]
    wanted = [
        [f(t / max_period ** (i / half)) for f in (math.cos, math.sin) for i in range(half)]
        for t in steps
    ]
    got = timestep_embedding(jnp.array(steps), dim, max_period)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, atol=1e-4)  # float32 angles up to 999: 3e-5 each


def test_cosines_come_first_and_the_fastest_wave_has_frequency_one():
    got = timestep_embedding(jnp.array([0.0, 0.5]), 8)
    np.testing.assert_array_equal(got[0], [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(got[1, [0, 4]], [math.cos(0.5), math.sin(0.5)], rtol=1e-6)


def test_odd_width_is_an_error():
    with pytest.raises(ValueError, match="even"):
        timestep_embedding(jnp.zeros(1), 7)


def test_mlp_is_dense_silu_dense():
    module = TimeEmbedding(sinusoid_dim=6, width=4)
    t = jnp.array([3, 700])
    params = module.init(jax.random.key(0), t)["params"]
    w1, w2 = (np.asarray(params[f"linear_{i}"]["kernel"], np.float64) for i in (1, 2))
    hidden = np.asarray(timestep_embedding(t, 6), np.float64) @ w1
    wanted = (hidden / (1 + np.exp(-hidden))) @ w2
    np.testing.assert_allclose(module.apply({"params": params}, t), wanted, rtol=1e-5, atol=1e-6)
