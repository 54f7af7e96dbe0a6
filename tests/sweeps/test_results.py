"""Tables and what matters, against closed forms."""

import csv
import io
import itertools
import pathlib

import pytest

from unclip_jax.config.sweeps import Objective, Sweep
from unclip_jax.config.typed import convert
from unclip_jax.sweeps.results import best, importance, rows, text, to_csv, to_markdown
from unclip_jax.sweeps.trials import DONE, FAILED, Trial, trial_id


def trial(number, overrides, value, status=DONE, why=""):
    return Trial(pathlib.Path(trial_id(overrides)), number, overrides, status, value, why)


def of(values):
    return [trial(i, overrides, value) for i, (overrides, value) in enumerate(values)]


def test_shares_of_a_full_grid_are_those_of_the_analysis_of_variance():
    """For f = 3 a + b on {0, 1, 2}^2 the variances are 9 and 1 times that of {0, 1, 2}."""
    grid = itertools.product(range(3), range(3))
    shares = importance(of(({"a": a, "b": b}, 3.0 * a + b) for a, b in grid))
    assert shares == pytest.approx({"a": 0.9, "b": 0.1})


def test_pure_interaction_belongs_to_no_setting():
    grid = itertools.product((-1, 1), (-1, 1))
    shares = importance(of(({"a": a, "b": b}, float(a * b)) for a, b in grid))
    assert shares == pytest.approx({"a": 0.0, "b": 0.0})


def test_numbers_with_many_values_are_put_into_four_groups():
    """y = x on 0 … 99: between four equal groups lie 15/16 of the variance, but for the edges."""
    shares = importance(of(({"x": float(x)}, float(x)) for x in range(100)))
    assert shares["x"] == pytest.approx((1 - 1 / 16) * 100**2 / (100**2 - 1))


def test_a_single_value_and_nothing_at_all():
    assert importance([]) == {}
    assert importance(of([({"a": 1}, 2.0)])) == {}
    assert importance(of([({"a": 1}, 2.0), ({"a": 2}, 2.0)])) == {"a": 0.0}


@pytest.mark.parametrize(("goal", "first"), [("minimize", "1"), ("maximize", "0")])
def test_the_table_has_the_best_first_and_failures_last(goal, first):
    sweep = Sweep(objective=Objective(name="score", goal=goal))
    trials = [
        trial(0, {"a": 1}, 2.0),
        trial(1, {"a": 2}, 1.0),
        trial(2, {"a": 3}, None, FAILED, "a | b\nc"),
    ]
    table = rows(sweep, trials)
    assert [row[0] for row in table] == ["trial", first, {"0": "1", "1": "0"}[first], "2"]
    assert str(best(sweep, trials).number) == first
    assert list(csv.reader(io.StringIO(to_csv(table)))) == table
    lines = to_markdown(table).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert "a \\| b c" in lines[-1]
    assert best(sweep, trials[2:]) is None


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 1e-4),
        (int, 3),
        (bool, False),
        (str, "8 epochs"),
        (tuple[int, ...], (1, 2)),
        (tuple[int, ...], (1,)),
        (float | None, None),
    ],
)
def test_settings_survive_the_command_line(hint, value):
    assert convert(hint, text(value), "x") == value
