"""Embedding scales against their definitions and the paper's number."""

import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.stages import embedding


def test_the_paper_scale_is_17_2_at_1024():
    z = np.random.default_rng(0).normal(size=(4, 1024)).astype(np.float32)
    lengths = np.linalg.norm(embedding.encode("paper", z), axis=1)
    np.testing.assert_allclose(lengths, 17.2, rtol=1e-5)


# Equal variance per dimension at other widths.
@pytest.mark.parametrize(("dim", "length"), [(512, 12.16), (768, 14.90), (1280, 19.23)])
def test_the_paper_scale_keeps_its_variance_at_other_widths(dim, length):
    z = np.random.default_rng(0).normal(size=(2, dim)).astype(np.float32)
    np.testing.assert_allclose(
        np.linalg.norm(embedding.encode("paper", z), axis=1), length, atol=0.006
    )


@pytest.mark.parametrize("name", ["unit", "paper", "sqrt_dim"])
def test_normalised_scales_decode_to_unit_vectors(name):
    z = 7 * np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    back = embedding.decode(name, embedding.encode(name, z))
    np.testing.assert_allclose(back, z / np.linalg.norm(z, axis=1, keepdims=True), rtol=1e-5)


def test_whitening_round_trips_and_has_unit_variance():
    z = 3 + 0.5 * np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    statistics = embedding.Statistics(jnp.asarray(z.mean(0)), jnp.asarray(z.std(0)))
    x = embedding.encode("whiten", z, statistics)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(embedding.decode("whiten", x, statistics), z, rtol=1e-5)


def test_errors():
    with pytest.raises(UserError, match="did you mean 'whiten'"):
        embedding.encode("whitening", jnp.ones((1, 2)))
    with pytest.raises(UserError, match="needs the statistics"):
        embedding.encode("whiten", jnp.ones((1, 2)))
