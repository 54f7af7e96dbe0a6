"""MMD: unbiased by enumeration of every draw, closed forms for Gaussians, CMMD's constants."""

import itertools

import numpy as np
import pytest

from unclip_jax.evaluation.mmd import (
    cubic_kernel,
    gaussian_distance,
    gaussian_kernel,
    kernel_distance,
    mmd_squared,
)

RNG = np.random.default_rng(0)


def test_unbiased_over_every_possible_draw():
    # X and Y are uniform over a few numbers. (x y + 1)^3 = sum_j C(3, j) x^j y^j, so in one
    # dimension MMD^2 = sum_j C(3, j) (E x^j - E y^j)^2 exactly.
    first, second = np.array([-1.0, 0.5, 2.0]), np.array([0.0, 1.0, 1.5])
    exact = sum(
        weight * (np.mean(first**power) - np.mean(second**power)) ** 2
        for power, weight in enumerate((1, 3, 3, 1))
    )
    estimates = [
        kernel_distance(np.array(x)[:, None], np.array(y)[:, None])
        for x in itertools.product(first, repeat=2)
        for y in itertools.product(second, repeat=3)
    ]
    assert len(estimates) == 9 * 27
    assert np.mean(estimates) == pytest.approx(exact, rel=1e-12)


def test_the_cubic_kernel_divides_by_the_dimension():
    x, y = np.full((1, 4), 2.0), np.full((1, 4), 3.0)
    assert cubic_kernel(x, y).item() == pytest.approx((6 + 1) ** 3)


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_gaussians_with_a_gaussian_kernel(shift, spread):
    # E exp(-|x - y|^2 / 2 s^2) = (s^2 / (s^2 + v))^(d/2) exp(-|m|^2 / (2 (s^2 + v))), where
    # x - y has mean m and variance v in each of d dimensions.
    sigma, dimensions = 1.5, 3

    def expected_kernel(variance: float, distance: float) -> float:
        width = sigma**2 + variance
        scale = (sigma**2 / width) ** (dimensions / 2)
        return scale * np.exp(-dimensions * distance**2 / (2 * width))

    exact = (
        expected_kernel(2, 0)
        + expected_kernel(2 * spread**2, 0)
        - 2 * expected_kernel(1 + spread**2, shift)
    )
    estimates = [
        mmd_squared(
            RNG.normal(size=(300, dimensions)),
            RNG.normal(shift, spread, size=(300, dimensions)),
            gaussian_kernel(sigma),
        )
        for _ in range(40)
    ]
    error = np.std(estimates) / 40**0.5
    assert abs(np.mean(estimates) - exact) < 4 * error


def test_sums_are_those_of_plain_loops_beyond_a_block():
    x, y = RNG.normal(size=(1100, 2)), RNG.normal(size=(30, 2)) + 0.2
    kernel = gaussian_kernel(0.7)

    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2, axis=-1) / (2 * 0.49))

    within_x = k(x[:, None], x[None])
    within_y = k(y[:, None], y[None])
    expected = (
        (within_x.sum() - len(x)) / (1100 * 1099)
        + (within_y.sum() - len(y)) / (30 * 29)
        - 2 * k(x[:, None], y[None]).mean()
    )
    assert mmd_squared(x, y, kernel) == pytest.approx(expected, rel=1e-9)


def test_cmmd_constants():
    # All x one unit vector, all y the opposite: k(x, y) = exp(-4 / 200), so 2000 (1 - k).
    x = np.tile([[0.0, 7.0, 0.0]], (4, 1))
    assert gaussian_distance(x, -0.1 * x) == pytest.approx(2000 * (1 - np.exp(-0.02)), rel=1e-12)


def test_it_may_be_negative_near_zero():
    pairs = [RNG.normal(size=(2, 10, 3)) for _ in range(50)]
    values = [kernel_distance(x, y) for x, y in pairs]
    assert min(values) < 0 < max(values)


def test_one_sample_is_too_few():
    with pytest.raises(ValueError, match="at least two samples"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))
