"""What comes next, as a pure function of the trials that there are."""

import dataclasses
import math
import pathlib

import pytest

from unclip_jax.config.sweeps import (
    Choice,
    Float,
    Int,
    Objective,
    Space,
    Sweep,
    grid,
    load_sweep,
    point,
    sampled,
    zipped,
)
from unclip_jax.errors import UserError
from unclip_jax.sweeps.suggest import Nothing, suggest
from unclip_jax.sweeps.trials import DONE, OPEN, Trial, trial_id

SQUARE = {"x": Float(-1.0, 1.0), "y": Float(-1.0, 1.0)}


def begun(overrides, number, status=OPEN, value=None):
    return Trial(pathlib.Path(trial_id(overrides)), number, overrides, status, value)


def ended(sweep, trials, f):
    return [dataclasses.replace(t, status=DONE, value=f(**t.overrides)) for t in trials]


def search(sweep, f, count, seed=0):
    """All trials of a sweep whose values are known at once."""
    trials = []
    while len(trials) < count:
        found = suggest(sweep, trials, seed)
        assert not isinstance(found, Nothing)
        trials.append(begun(found, len(trials), DONE, f(**found)))
    return trials


def test_grid_and_zip():
    assert grid({"a": [1, 2], "b": "xy"}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert zipped({"a": [1, 2], "b": [3, 4]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(UserError, match="one length"):
        zipped({"a": [1], "b": [1, 2]})


def test_the_name_of_a_trial_does_not_depend_on_the_order():
    assert trial_id({"a": 1, "b": 2}) == trial_id({"b": 2, "a": 1})
    assert trial_id({"a": 1}) != trial_id({"a": 2})


def test_points_of_a_space():
    space = {"f": Float(1e-4, 1e-2, log=True), "i": Int(1, 4), "c": Choice(("a", None))}
    assert point(space, [0.5, 0.0, 0.0]) == {"f": 1e-3, "i": 1, "c": "a"}
    assert point(space, [0.0, 1.0 - 1e-9, 1.0 - 1e-9]) == {"f": 1e-4, "i": 4, "c": None}
    counts = [point({"i": Int(1, 4)}, [(k + 0.5) / 400])["i"] for k in range(400)]
    assert [counts.count(i) for i in (1, 2, 3, 4)] == [100] * 4


def test_random_lists_are_the_same_whatever_their_length():
    assert sampled(SQUARE, 3, seed=1) == sampled(SQUARE, 9, seed=1)[:3]
    assert sampled(SQUARE, 3, seed=1) != sampled(SQUARE, 3, seed=2)


def test_a_list_goes_through_once_and_skips_what_there_is(toy):
    sweep = toy(trials=grid({"x": [1, 2, 3]}))
    trials = [begun({"x": 2}, 0), begun({"x": 1}, 1)]
    assert suggest(sweep, trials, 0) == {"x": 3}
    assert suggest(sweep, [*trials, begun({"x": 3}, 2)], 0) is Nothing.EVER


@pytest.mark.parametrize("kind", ["random", "sobol", "tpe", "cma-es"])
def test_searches_repeat_themselves_and_end(toy, kind):
    if kind in ("sobol", "tpe", "cma-es"):
        pytest.importorskip({"sobol": "scipy", "tpe": "optuna", "cma-es": "cmaes"}[kind])
    sweep = toy(space=Space(parameters=SQUARE, count=12, search=kind, startup=4))
    f = lambda x, y: (x - 0.3) ** 2 + y**2  # noqa: E731
    first = search(sweep, f, 12)
    assert len({trial.id for trial in first}) == 12
    assert [t.overrides for t in search(sweep, f, 12)] == [t.overrides for t in first]
    assert suggest(sweep, first, 0) is Nothing.EVER
    assert [t.overrides for t in search(sweep, f, 12, seed=1)] != [t.overrides for t in first]


def test_sobol_points_cover_evenly(toy):
    pytest.importorskip("scipy")
    sweep = toy(space=Space(parameters=SQUARE, count=64, search="sobol"))
    trials = search(sweep, lambda x, y: 0.0, 64)
    for name in SQUARE:  # one point in each of 64 slices: the mark of a (t, m, s)-net
        slices = {math.floor((t.overrides[name] + 1) / 2 * 64) for t in trials}
        assert len(slices) >= 63  # values are rounded to six digits


def test_cma_es_waits_for_a_generation_and_finds_the_minimum(toy):
    pytest.importorskip("cmaes")
    sweep = toy(space=Space(parameters=SQUARE, count=200, search="cma-es"))
    f = lambda x, y: (x - 0.3) ** 2 + 10 * (y + 0.2) ** 2  # noqa: E731
    trials = []
    while (found := suggest(sweep, trials, 0)) is not Nothing.NOW:
        trials.append(begun(found, len(trials)))
    assert len(trials) == 6  # 4 + 3 ln 2, the usual size
    assert not isinstance(suggest(sweep, ended(sweep, trials, f), 0), Nothing)
    best = min(search(sweep, f, 150), key=lambda trial: trial.value)
    assert abs(best.overrides["x"] - 0.3) < 0.02
    assert abs(best.overrides["y"] + 0.2) < 0.02


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_tpe_beats_random_search(toy, goal):
    pytest.importorskip("optuna")
    sign = 1 if goal == "minimize" else -1
    space = Space(
        parameters={**SQUARE, "c": Choice(("good", "bad"))}, count=60, search="tpe", startup=8
    )
    sweep = dataclasses.replace(toy(space=space), objective=Objective(name="loss", goal=goal))
    f = lambda x, y, c: sign * ((x - 0.3) ** 2 + (y - 0.5) ** 2 + (c == "bad"))  # noqa: E731
    by_random = dataclasses.replace(sweep, space=dataclasses.replace(space, search="random"))
    late = lambda s: [sign * t.value for t in search(s, f, 60)[40:]]  # noqa: E731
    assert sum(late(sweep)) < 0.5 * sum(late(by_random))


def test_running_trials_are_kept_away_from(toy):
    pytest.importorskip("optuna")
    sweep = toy(space=Space(parameters=SQUARE, count=40, search="tpe", startup=2))
    trials = search(sweep, lambda x, y: x**2 + y**2, 10)
    for _ in range(4):
        trials.append(begun(suggest(sweep, trials, 0), len(trials)))
    running = [t.overrides["x"] for t in trials[10:]]
    assert len(set(running)) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "either trials or space"),
        ("trials=[{'x': 1}], config='prior:tiny'", "either config or command"),
        (
            "space=Space(parameters={'x': Choice((1, 2))}, count=3, search='cma-es')",
            "can't choose x",
        ),
        (
            "space=Space(parameters={'x': Float(0, 1)}, count=3, search='grid')",
            "a grid needs choices",
        ),
        ("space=Space(parameters={'x': Float(0, 1, log=True)}, count=3)", "x: \\[0, 1\\]"),
    ],
)
def test_mistakes_in_sweep_files(sweep_file, fields, message):
    with pytest.raises(UserError, match=message):
        load_sweep(str(sweep_file(fields)))


def test_a_sweep_that_does_not_exist():
    with pytest.raises(UserError, match="did you mean 'prior_lr'"):
        load_sweep("prior_lx")


@pytest.mark.parametrize("name", ["prior_lr", "guidance", "embedding_scale", "dropout"])
def test_shipped_sweeps_load(name):
    assert isinstance(load_sweep(f"configs/sweeps/{name}.py"), Sweep)
