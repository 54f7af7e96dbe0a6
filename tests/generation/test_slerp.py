"""Spherical interpolation: ends, lengths and angles, against the geometry of the circle."""

import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation.slerp import slerp

FRACTIONS = np.linspace(0, 1, 11).tolist()


def pair(dim=64, seed=0, lengths=(1.0, 1.0)):
    a, b = np.random.default_rng(seed).normal(size=(2, dim))
    a, b = (length * x / np.linalg.norm(x) for x, length in zip((a, b), lengths, strict=True))
    return a.astype(np.float32), b.astype(np.float32)


def test_the_ends_are_the_inputs_bit_for_bit():
    for lengths in ((1, 1), (10.5, 3.25)):
        a, b = pair(lengths=lengths)
        found = slerp(a, b, FRACTIONS)
        np.testing.assert_array_equal(found[0], a)
        np.testing.assert_array_equal(found[-1], b)


@pytest.mark.parametrize("angle", [1e-9, 1e-5, 0.3, 2.0, 3.1])
def test_unit_vectors_stay_unit_and_turn_evenly(angle):
    a = np.zeros(5)
    b = np.zeros(5)
    a[1] = 1
    b[1], b[3] = np.cos(angle), np.sin(angle)
    found = slerp(a, b, FRACTIONS).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-7)
    turned = np.arctan2(found[:, 3], found[:, 1])
    np.testing.assert_allclose(turned, angle * np.array(FRACTIONS), atol=2e-7)


def test_lengths_change_evenly_where_they_differ():
    a, b = pair(lengths=(4.0, 1.0))
    found = slerp(a, b, FRACTIONS)
    wanted = 4 - 3 * np.array(FRACTIONS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), wanted, rtol=1e-6)


def test_pictures_keep_their_shape():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    assert slerp(a, b, [0.0, 0.5, 1.0]).shape == (3, 4, 4, 3)


def test_directions_that_are_not_defined_are_refused():
    a, _ = pair()
    with pytest.raises(UserError, match="length 0"):
        slerp(a, 0 * a, [0.5])
    with pytest.raises(UserError, match="point away"):
        slerp(a, -a, [0.5])
