"""Whether a running trial looks hopeless, by the curves of all trials."""

import statistics
from collections.abc import Mapping, Sequence

from unclip_jax.config.sweeps import Pruning, Sweep
from unclip_jax.sweeps.halving import Curve, Hyperband, goes_on
from unclip_jax.sweeps.trials import DONE, Trial


def hopeless(
    sweep: Sweep, trial: Trial, trials: Sequence[Trial], curves: Mapping[str, Curve]
) -> bool:
    """The verdict of the sweep's pruning rule on an open trial.

    Args:
      curves: {trial's id: {step: value}}.
    """
    if sweep.pruning is None or not curves.get(trial.id):
        return False
    sign = 1 if sweep.objective.goal == "minimize" else -1
    losses = {name: {s: sign * v for s, v in curve.items()} for name, curve in curves.items()}
    if sweep.pruning.rule == "median":
        finished = [losses[t.id] for t in trials if t.status == DONE and t.id in losses]
        return _worse_than_median(sweep.pruning, losses[trial.id], finished)
    return _behind(sweep.pruning, trial, trials, losses)


def _worse_than_median(rule: Pruning, mine: Curve, finished: Sequence[Curve]) -> bool:
    """The best value so far against the median of finished trials at the same step."""
    step = max(mine)
    if len(finished) < rule.after_trials or step < rule.after_steps:
        return False
    theirs = [curve[step] for curve in finished if step in curve]
    return bool(theirs) and min(mine.values()) > statistics.median(theirs)


def _behind(
    rule: Pruning, trial: Trial, trials: Sequence[Trial], losses: Mapping[str, Curve]
) -> bool:
    """By Hyperband, among those of the same bracket."""
    band = Hyperband(rule.after_steps, rule.max_steps, rule.factor)
    bracket = band.bracket(trial.number)
    members = [t for t in trials if band.bracket(t.number) == bracket]
    curves = [losses[t.id] for t in members if t.id in losses]
    return not goes_on(losses[trial.id], curves, band.rungs(bracket), rule.factor)
