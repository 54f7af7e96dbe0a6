"""Bootstrap intervals: width, coverage, groups, repeatability."""

import numpy as np
import pytest

from unclip_jax.evaluation.bootstrap import bootstrap_interval

RNG = np.random.default_rng(0)


def test_width_is_that_of_the_normal_theory():
    values = RNG.normal(5, 2, size=400)
    low, high = bootstrap_interval(values, resamples=20_000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error)
    narrow = bootstrap_interval(values, level=0.6827, resamples=20_000)
    assert narrow[1] - narrow[0] == pytest.approx(2 * error, rel=0.03)


def test_intervals_hold_the_truth_as_often_as_they_say():
    trials = 400
    held = 0
    for _ in range(trials):
        low, high = bootstrap_interval(RNG.normal(size=100), level=0.9, resamples=300)
        held += low <= 0 <= high
    # Binomial: 360 of 400 expected, four standard deviations; the bootstrap is a little narrow.
    assert abs(held - 0.9 * trials) < 4 * (trials * 0.09) ** 0.5 + 0.02 * trials


def test_copies_of_an_example_add_no_certainty():
    values = RNG.normal(size=50)
    names = [str(index) for index in range(50)]
    alone = bootstrap_interval(values, names)
    copied = bootstrap_interval(np.repeat(values, 10), np.repeat(names, 10).tolist())
    assert copied == pytest.approx(alone)
    unaware = bootstrap_interval(np.repeat(values, 10))
    assert unaware[1] - unaware[0] < 0.5 * (alone[1] - alone[0])


def test_groups_of_one_are_no_groups():
    values = RNG.normal(size=30)
    names = [f"{index:02d}" for index in range(30)]
    assert bootstrap_interval(values, names) == pytest.approx(bootstrap_interval(values))


def test_the_seed_decides():
    values = RNG.normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_constant_has_no_width():
    assert bootstrap_interval(np.ones(9)) == (1.0, 1.0)
