"""Whether a running trial looks hopeless, by the curves of all trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from unclip_jax.config.sweeps import Pruning, Sweep
from unclip_jax.errors import UserError
from unclip_jax.sweeps.trials import DONE, OPEN, PRUNED, Trial

Curve = Mapping[int, float]


def hopeless(
    sweep: Sweep, trial: Trial, trials: Sequence[Trial], curves: Mapping[str, Curve]
) -> bool:
    """The verdict of the sweep's pruning rule on an open trial, by Optuna's pruners.

    Args:
      curves: {trial's id: {step: value}}.
    """
    mine = curves.get(trial.id)
    if sweep.pruning is None or not mine:
        return False
    try:
        import optuna
    except ImportError:
        raise UserError("pruning needs optuna: pip install 'unclip_jax[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = _pruner(optuna, sweep.pruning)
    study = optuna.create_study(direction=sweep.objective.goal, pruner=pruner, study_name="sweep")
    states = optuna.trial.TrialState
    state_of = {DONE: states.COMPLETE, PRUNED: states.PRUNED, OPEN: states.RUNNING}
    place = -1
    for other in trials:
        if other.status not in state_of:
            continue
        if other.id == trial.id:
            place = len(study.trials)
        study.add_trial(
            optuna.trial.create_trial(
                state=state_of[other.status],
                value=other.value if other.status == DONE else None,
                intermediate_values=dict(curves.get(other.id, {})),
            )
        )
    return pruner.prune(study, study.trials[place])


def _pruner(optuna: Any, rule: Pruning) -> Any:
    if rule.rule == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=rule.after_trials, n_warmup_steps=rule.after_steps
        )
    return optuna.pruners.HyperbandPruner(
        min_resource=rule.after_steps, max_resource=rule.max_steps, reduction_factor=rule.factor
    )
