"""Which overrides come next: a pure function of the sweep and of the trials that lie in its folder.

Random and quasi-random searches are endless lists; the first point without a trial is next. CMA-ES
is replayed: its generations are told the results again, and the first proposal without a trial is
next. TPE gets a study that is built anew from all trials, running ones included, so that parallel
trials keep apart (its "constant liar").
"""

import enum
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from unclip_jax.config.sweeps import (
    Choice,
    Float,
    Int,
    Overrides,
    Space,
    Sweep,
    grid,
    point,
    random_unit,
)
from unclip_jax.errors import UserError
from unclip_jax.sweeps.trials import DONE, FAILED, OPEN, PRUNED, Trial, canonical, trial_id

ADAPTIVE = ("tpe", "cma-es")  # searches that go by the results of earlier trials
_FURTHEST = 10_000  # points looked at before a space counts as exhausted


class Nothing(enum.Enum):
    """No trial to begin."""

    NOW = "wait for results"
    EVER = "all are begun"


def suggest(sweep: Sweep, trials: Sequence[Trial], seed: int) -> Overrides | Nothing:
    """The next trial's overrides."""
    taken = {trial.id for trial in trials}
    if sweep.space is None:
        return _first_free(sweep.trials, taken)
    space = sweep.space
    if space.search == "grid":
        values = {k: p.values for k, p in space.parameters.items() if isinstance(p, Choice)}
        return _first_free(grid(values)[: space.count], taken)
    if len(trials) >= space.count:
        return Nothing.EVER
    if space.search == "random":
        return _first_free(_random(space, seed), taken)
    if space.search == "sobol":
        return _first_free(_sobol(space, seed), taken)
    if space.search == "cma-es":
        return _cma_es(sweep, space, trials, seed)
    return _tpe(sweep, space, trials, seed)


def _first_free(candidates: Iterable[Overrides], taken: set[str]) -> Overrides | Nothing:
    for overrides in itertools.islice(candidates, _FURTHEST):
        if trial_id(overrides) not in taken:
            return overrides
    return Nothing.EVER


def _random(space: Space, seed: int) -> Iterator[Overrides]:
    for i in itertools.count():
        yield point(space.parameters, random_unit(len(space.parameters), seed, i))


def _sobol(space: Space, seed: int) -> Iterator[Overrides]:
    """Scrambled Sobol points: any power of two of them covers the space evenly."""
    try:
        from scipy.stats import qmc
    except ImportError:
        raise _missing("scipy") from None
    sobol = qmc.Sobol(len(space.parameters), scramble=True, rng=seed)
    while True:
        for unit in sobol.random(64):
            yield point(space.parameters, [float(u) for u in unit])


def _cma_es(sweep: Sweep, space: Space, trials: Sequence[Trial], seed: int) -> Overrides | Nothing:
    """CMA-ES (arXiv 1604.00772) in the unit cube, from its middle."""
    try:
        import cmaes
        import numpy as np
    except ImportError:
        raise _missing("cmaes") from None
    dimensions = len(space.parameters)
    bounds = np.tile([0.0, 1.0 - 1e-9], (dimensions, 1))
    optimizer = cmaes.CMA(np.full(dimensions, 0.5), 0.25, bounds=bounds, seed=seed)
    known = {trial.id: trial for trial in trials}
    for _ in range(_FURTHEST // optimizer.population_size):
        told, waiting = [], False
        for _ in range(optimizer.population_size):
            unit = optimizer.ask()
            overrides = point(space.parameters, list(unit))
            trial = known.get(trial_id(overrides))
            if trial is None:
                return overrides
            waiting = waiting or trial.status == OPEN
            told.append((unit, loss(sweep, trial)))
        if waiting:
            return Nothing.NOW
        optimizer.tell(told)
    return Nothing.EVER


def loss(sweep: Sweep, trial: Trial) -> float:
    """What a search minimises; a failed trial is as bad as a float can say."""
    if trial.value is None:
        return 1e30
    return trial.value if sweep.objective.goal == "minimize" else -trial.value


def _tpe(sweep: Sweep, space: Space, trials: Sequence[Trial], seed: int) -> Overrides | Nothing:
    """Tree of Parzen estimators (Bergstra et al. 2011), by Optuna."""
    taken = {trial.id for trial in trials}
    for retry in range(20):  # of choices alone the same point may come again
        study = make_study(sweep, space, trials, seed + len(trials) + 1000 * retry)
        drawn = study.ask(distributions(space)).params
        overrides = {name: drawn[name] for name in space.parameters}
        overrides = _decode(space, overrides)
        if trial_id(overrides) not in taken:
            return overrides
    return _first_free(_random(space, seed), taken)


def make_study(sweep: Sweep, space: Space, trials: Sequence[Trial], seed: int) -> Any:
    """An Optuna study in memory that knows these trials."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    state_of = {
        DONE: states.COMPLETE,
        PRUNED: states.PRUNED,
        FAILED: states.FAIL,
        OPEN: states.RUNNING,
    }
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=space.startup, constant_liar=True, multivariate=True
    )
    goal = sweep.objective.goal
    study = optuna.create_study(direction=goal, sampler=sampler, study_name="sweep")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=state_of[trial.status],
                value=trial.value if trial.status == DONE else None,
                params=_encode(space, trial.overrides),
                distributions=distributions(space),
                intermediate_values={0: trial.value} if trial.status == PRUNED else {},
            )
        )
    return study


def distributions(space: Space) -> dict[str, Any]:
    """The space in Optuna's words. Choices are given by their JSON, for any value to be one."""
    optuna = _optuna()
    found: dict[str, Any] = {}
    for name, p in space.parameters.items():
        if isinstance(p, Choice):
            values = [canonical(value) for value in p.values]
            found[name] = optuna.distributions.CategoricalDistribution(values)
        elif isinstance(p, Int):
            found[name] = optuna.distributions.IntDistribution(p.low, p.high, log=p.log)
        else:
            found[name] = optuna.distributions.FloatDistribution(p.low, p.high, log=p.log)
    return found


def _encode(space: Space, overrides: Overrides) -> dict[str, Any]:
    return {
        name: canonical(overrides[name]) if isinstance(p, Choice) else overrides[name]
        for name, p in space.parameters.items()
    }


def _decode(space: Space, drawn: dict[str, Any]) -> Overrides:
    decoded: Overrides = {}
    for name, p in space.parameters.items():
        if isinstance(p, Choice):
            decoded[name] = {canonical(value): value for value in p.values}[drawn[name]]
        elif isinstance(p, Float):
            decoded[name] = min(max(float(f"{drawn[name]:.6g}"), p.low), p.high)
        else:
            decoded[name] = drawn[name]
    return decoded


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise _missing("optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _missing(library: str) -> UserError:
    return UserError(f"this search needs {library}: pip install 'unclip_jax[sweep]'")
