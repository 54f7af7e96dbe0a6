"""Ending trials early: the median rule and Hyperband, against closed forms and Optuna's pruners."""

import pathlib
import random

import pytest

from unclip_jax.config.sweeps import Objective, Pruning, Sweep
from unclip_jax.sweeps.halving import Hyperband
from unclip_jax.sweeps.prune import hopeless
from unclip_jax.sweeps.trials import DONE, OPEN, PRUNED, Trial


def sweep(goal="minimize", **rule):
    return Sweep(objective=Objective(name="loss", goal=goal), pruning=Pruning(**rule))


def trial(number, status=OPEN):
    return Trial(pathlib.Path(str(number)), number, {"x": number}, status)


@pytest.mark.parametrize(
    ("mine", "after_trials", "after_steps", "expected"),
    [
        ({1: 9.0, 2: 2.5}, 3, 1, True),  # at step 2 the others have 1, 2 and 3
        ({1: 9.0, 2: 2.0}, 3, 1, False),
        ({1: 1.5, 2: 9.0}, 3, 1, False),  # its best counts, as a curve has noise
        ({1: 9.0, 2: 9.0}, 4, 1, False),
        ({1: 9.0, 2: 9.0}, 3, 3, False),
        ({}, 3, 1, False),
    ],
)
def test_the_median_rule(mine, after_trials, after_steps, expected):
    trials = [*(trial(i, DONE) for i in range(3)), trial(3, PRUNED), trial(4)]
    curves = {str(i): {1: 5.0, 2: 1.0 + i} for i in range(3)} | {"3": {1: 0.0, 2: 0.0}, "4": mine}
    rule = {"rule": "median", "after_trials": after_trials, "after_steps": after_steps}
    assert hopeless(sweep(**rule), trials[4], trials, curves) is expected
    turned = {name: {s: -v for s, v in curve.items()} for name, curve in curves.items()}
    assert hopeless(sweep("maximize", **rule), trials[4], trials, turned) is expected


def test_brackets_are_those_of_the_paper():
    """Table 1 of arXiv 1603.06560: R = 81, eta = 3, of which s = 4 … 0 begin with n trials each."""
    band = Hyperband(1, 81, 3)
    assert band.shares() == [81, 34, 15, 8, 5]
    assert [band.rungs(s) for s in range(5)] == [[1, 3, 9, 27], [3, 9, 27], [9, 27], [27], []]
    brackets = [band.bracket(number) for number in range(2 * 143)]
    assert [brackets.count(s) for s in range(5)] == [162, 68, 30, 16, 10]


def test_a_third_of_a_rung_goes_on():
    trials = [trial(i) for i in range(9)]  # all in bracket 0, whose first rung is step 1
    curves = {t.id: {1: float(t.number)} for t in trials}
    rule = sweep(rule="hyperband", max_steps=81)
    assert [hopeless(rule, t, trials, curves) for t in trials] == 3 * [False] + 6 * [True]
    curves["0"] |= {2: 9.0, 3: 9.0}  # promoted; at the next rung it is alone, whatever comes below
    assert not hopeless(rule, trials[0], trials, curves)
    curves["1"] |= {3: 8.0}
    assert hopeless(rule, trials[0], trials, curves)
    assert not hopeless(rule, trials[1], trials, curves)


def curve(generator):
    level = generator.random()
    return {step: level + generator.random() / step for step in range(1, 28)}


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("rule", ["median", "hyperband"])
def test_one_trial_after_the_other_is_judged_as_by_optuna(rule, goal):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    mine = sweep(goal, rule=rule, after_trials=4, max_steps=27)
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        "hyperband": lambda: optuna.pruners.SuccessiveHalvingPruner(1, 3),
    }
    generator = random.Random(0)
    study = optuna.create_study(direction=goal, pruner=pruners[rule]())
    trials, curves, lengths = [], {}, []
    for number in range(25):  # of which Hyperband puts the first 27 into its strictest bracket
        theirs, seen = study.ask(), {}
        trials.append(trial(number))
        for step, value in curve(generator).items():
            theirs.report(value, step)
            seen[step] = value
            curves[str(number)] = seen
            pruned = bool(theirs.should_prune())
            last = step == 27  # Optuna has a rung there too; nothing is left to save
            assert last or hopeless(mine, trials[-1], trials, curves) is pruned, (number, step)
            if pruned:
                break
        study.tell(theirs, state=optuna.trial.TrialState.PRUNED if pruned else None, values=None
                   if pruned else value)  # fmt: skip
        trials[-1] = trial(number, PRUNED if pruned else DONE)
        lengths.append(step)
    assert 5 < sum(length < 27 for length in lengths) < 25
