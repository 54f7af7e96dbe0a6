"""The Fréchet distance against closed forms and against scipy's matrix square root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from unclip_jax.evaluation.frechet import frechet_distance, frechet_distance_of_gaussians

RNG = np.random.default_rng(0)


def covariance(size: int) -> np.ndarray:
    factor = RNG.normal(size=(size, 2 * size))
    return factor @ factor.T / size


def samples_with(mean: np.ndarray, cov: np.ndarray, count: int) -> np.ndarray:
    """Samples whose mean and covariance (n - 1) are exactly the given ones."""
    noise = RNG.normal(size=(count, len(mean)))
    noise -= noise.mean(axis=0)
    whitened = np.linalg.qr(noise)[0] * np.sqrt(count - 1)
    return whitened @ np.linalg.cholesky(cov).T + mean


def by_scipy(mean_1, cov_1, mean_2, cov_2) -> float:
    root = sqrtm(cov_1 @ cov_2)
    return float(np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1 + cov_2 - 2 * root.real))


def test_in_one_dimension():
    # (mu_1 - mu_2)^2 + (sigma_1 - sigma_2)^2
    x = np.array([[1.0], [3.0]])  # mean 2, variance 2
    y = np.array([[0.0], [8.0], [4.0]])  # mean 4, variance 16
    assert frechet_distance(x, y) == pytest.approx(4 + (2**0.5 - 4) ** 2, rel=1e-12)


def test_covariances_that_commute():
    first, second = RNG.uniform(0.1, 3, 6), RNG.uniform(0.1, 3, 6)
    turn = ortho_group.rvs(6, random_state=1)
    distance = frechet_distance_of_gaussians(
        np.zeros(6), turn @ np.diag(first) @ turn.T, np.ones(6), turn @ np.diag(second) @ turn.T
    )
    expected = 6 + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    assert distance == pytest.approx(expected, rel=1e-12)


def test_two_dimensions_in_closed_form():
    # For a 2 x 2 matrix with positive eigenvalues, tr(A^(1/2))^2 = tr(A) + 2 det(A)^(1/2).
    one, two = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 4.0]])
    product = one @ two
    root_trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(one) + np.trace(two) - 2 * root_trace
    zero = np.zeros(2)
    assert frechet_distance_of_gaussians(zero, one, zero, two) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [2, 17, 64])
def test_both_forms_agree_with_scipy(size):
    mean_1, mean_2 = RNG.normal(size=(2, size))
    cov_1, cov_2 = covariance(size), covariance(size)
    expected = by_scipy(mean_1, cov_1, mean_2, cov_2)
    of_gaussians = frechet_distance_of_gaussians(mean_1, cov_1, mean_2, cov_2)
    of_samples = frechet_distance(
        samples_with(mean_1, cov_1, 3 * size), samples_with(mean_2, cov_2, 5 * size)
    )
    assert of_gaussians == pytest.approx(expected, rel=1e-10)
    assert of_samples == pytest.approx(expected, rel=1e-10)


def test_fewer_samples_than_dimensions():
    x, y = RNG.normal(size=(12, 40)), RNG.normal(size=(9, 40)) + 0.3
    expected = frechet_distance_of_gaussians(
        x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
    )
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_distance_to_itself_is_zero():
    x = RNG.normal(size=(50, 20)) * np.geomspace(1e-3, 1e3, 20)
    spread = np.trace(np.cov(x, rowvar=False))
    assert abs(frechet_distance(x, x[::-1])) < 1e-12 * spread


def test_turning_both_changes_nothing_and_the_order_does_not_matter():
    x, y = RNG.normal(size=(60, 8)), RNG.normal(size=(40, 8)) * 2 + 1
    turn = ortho_group.rvs(8, random_state=2)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-11)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)


def test_float32_features_are_computed_in_float64():
    x, y = RNG.normal(size=(2, 40, 6)).astype(np.float32) + np.float32(1000)
    exact = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert frechet_distance(x, y) == exact


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="two or more samples"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\(5, 3\), \(5, 4\)"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="different dimensions: 3, 2"):
        frechet_distance_of_gaussians(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
