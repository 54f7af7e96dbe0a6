"""k-NN precision, recall and coverage against a k-d tree, by hand, and against a theorem."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from unclip_jax.evaluation.manifold import coverage, precision_recall

RNG = np.random.default_rng(0)


def by_tree(points, centres, k):
    """Share of `points` within some centre's distance to its k-th other centre."""
    radii = cKDTree(centres).query(centres, k + 1)[0][:, -1]
    distances = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    return np.mean((distances <= radii).any(axis=1))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_against_a_tree(k):
    generated, real = RNG.normal(size=(60, 3)) * 0.7 + 0.4, RNG.normal(size=(80, 3))
    precision, recall = precision_recall(generated, real, k)
    assert precision == by_tree(generated, real, k)
    assert recall == by_tree(real, generated, k)
    assert 0 < recall < precision < 1
    radii = cKDTree(real).query(real, k + 1)[0][:, -1]
    assert coverage(generated, real, k) == np.mean(cKDTree(generated).query(real)[0] <= radii)


def test_beyond_a_block():
    generated, real = RNG.normal(size=(1200, 2)), RNG.normal(size=(1500, 2))
    precision, recall = precision_recall(generated, real, 3)
    assert precision == by_tree(generated, real, 3)
    assert recall == by_tree(real, generated, 3)


def test_by_hand_on_a_line():
    real = np.array([[0.0], [1.0], [10.0], [12.0]])  # radii for k = 1: 1, 1, 2, 2
    generated = np.array([[-0.5], [5.0], [13.0]])  # radii: 5.5, 5.5, 8
    assert precision_recall(generated, real, 1) == (pytest.approx(2 / 3), 1.0)
    assert coverage(generated, real, 1) == 0.5  # 0 (by -0.5) and 12 (by 13)


def test_a_collapsed_generator_is_precise_but_covers_nothing():
    real = RNG.normal(size=(200, 4))
    collapsed = np.tile(real[:1], (200, 1)) + 1e-6 * RNG.normal(size=(200, 4))
    precision, recall = precision_recall(collapsed, real)
    assert precision == 1.0
    assert recall < 0.02
    assert coverage(collapsed, real) < 0.1


def test_outliers_fool_recall_but_not_coverage():
    real, scattered = RNG.normal(size=(100, 16)), 50 * RNG.normal(size=(100, 16))
    assert precision_recall(scattered, real)[1] > 0.9
    assert coverage(scattered, real) == 0.0


@pytest.mark.parametrize(("reals", "fakes", "k"), [(40, 40, 5), (30, 60, 2)])
def test_expected_coverage_of_one_distribution(reals, fakes, k):
    # Naeem et al. 2020, lemma 2: of the nearest k among all others, all are real.
    steps = np.arange(1, k + 1)
    expected = 1 - np.prod((reals - steps) / (reals + fakes - steps))
    found = [
        coverage(RNG.normal(size=(fakes, 2)), RNG.normal(size=(reals, 2)), k) for _ in range(400)
    ]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / 20


def test_too_few_samples():
    with pytest.raises(ValueError, match="more than 3 samples"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="more than 5 real"):
        coverage(np.zeros((9, 2)), np.zeros((5, 2)))
