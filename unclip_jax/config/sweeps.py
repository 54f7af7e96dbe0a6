"""What a sweep is: which settings are tried, what is run for each trial, and what is measured.

A sweep file is Python (so it is trusted code) and defines `get_sweep(variant) -> Sweep`. It either
lists its trials (`grid`, `zipped`, `sampled`, or any list of overrides) or declares a `Space` that
a search draws from.

    def get_sweep(variant="emoji"):
        return Sweep(
            config=f"prior:{variant}",
            trials=grid({"optim.learning_rate": [3e-4, 1e-3], "train.batch_size": [64, 128]}),
            objective=Objective(name="validation/loss"),
        )
"""

import itertools
import math
import pathlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unclip_jax.config.load import load_module, preset_dir
from unclip_jax.errors import UserError, did_you_mean

Overrides = dict[str, Any]


@dataclass(frozen=True)
class Float:
    """A number in [low, high]; `log` spreads it evenly in its logarithm."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]


Parameter = Float | Int | Choice


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where a search looks, and how.

    Attributes:
      parameters: {setting: range}.
      count: how many trials.
      search: "tpe" (tree of Parzen estimators, Optuna), "cma-es", "sobol" (quasi-random), "random"
        or "grid" (of choices alone).
      startup: of "tpe": trials drawn at random before the first model.
    """

    parameters: Mapping[str, Parameter]
    count: int
    search: Literal["tpe", "cma-es", "sobol", "random", "grid"] = "tpe"
    startup: int = 8


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The number that trials are compared by.

    Attributes:
      name: of the metric in `metrics.jsonl`, or the path of a number in another file, such as
        "numbers.val_style.clip_score".
      file: below the trial's output folder.
      take: of a curve, its "last", "min" or "max" value.
    """

    name: str = "validation/loss"
    file: str = "metrics.jsonl"
    goal: Literal["minimize", "maximize"] = "minimize"
    take: Literal["last", "min", "max"] = "last"


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Ending trials early that look hopeless, by their curves in `metrics.jsonl`.

    "median" ends a trial whose best value so far is worse than the median of finished ones at that
    step; "hyperband" compares trials at 1, factor, factor^2, … times `after_steps`, and lets the
    best of each bracket go on.
    """

    rule: Literal["median", "hyperband"] = "median"
    after_steps: int = 1
    after_trials: int = 4  # of "median"
    max_steps: int = 1000  # of "hyperband": of a whole trial
    factor: int = 3  # of "hyperband": one in so many goes on


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep.

    Attributes:
      config: what `unclip train` is to train, unless there is a `command`.
      command: what to run instead; {out} is the trial's output folder, and other names in braces
        are given with --given NAME=VALUE.
      option: how a setting is written behind the command, {name} and {value} filled in.
      after: commands that follow, such as an export and an evaluation of what was trained.
      base: settings that all trials share.
      trials: overrides of each trial; or
      space: where a search looks for them.
    """

    config: str = ""
    command: tuple[str, ...] = ()
    option: tuple[str, ...] = ("--config.{name}={value}",)
    after: tuple[tuple[str, ...], ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[Overrides] = ()
    space: Space | None = None
    objective: Objective = field(default_factory=Objective)
    pruning: Pruning | None = None


def grid(values: Mapping[str, Iterable[Any]]) -> list[Overrides]:
    """Every combination; the last setting varies fastest."""
    return [
        dict(zip(values, point, strict=True))
        for point in itertools.product(*(list(v) for v in values.values()))
    ]


def zipped(values: Mapping[str, Sequence[Any]]) -> list[Overrides]:
    """The first values together, then the second ones, and so on."""
    lengths = {name: len(v) for name, v in values.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"zipped: lists of one length are needed, got {lengths}")
    return [dict(zip(values, point, strict=True)) for point in zip(*values.values(), strict=True)]


def sampled(parameters: Mapping[str, Parameter], count: int, seed: int = 0) -> list[Overrides]:
    """Random points of a space; the same for the same seed, whatever the count."""
    return [point(parameters, random_unit(len(parameters), seed, i)) for i in range(count)]


def random_unit(dimensions: int, seed: int, number: int) -> list[float]:
    """The `number`-th random point of the unit cube."""
    generator = random.Random(f"{seed} {number}")
    return [generator.random() for _ in range(dimensions)]


def point(parameters: Mapping[str, Parameter], unit: Sequence[float]) -> Overrides:
    """The overrides at a point of the unit cube, [0, 1) in each dimension."""
    return {name: _at(p, u) for (name, p), u in zip(parameters.items(), unit, strict=True)}


def _at(parameter: Parameter, u: float) -> Any:
    if isinstance(parameter, Choice):
        return parameter.values[min(int(u * len(parameter.values)), len(parameter.values) - 1)]
    low, high = float(parameter.low), float(parameter.high)
    if isinstance(parameter, Int):  # each whole number has a cell of its own
        low, high = low - 0.5, high + 0.5
    if parameter.log:
        value = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        value = low + u * (high - low)
    if isinstance(parameter, Int):
        return min(max(round(value), parameter.low), parameter.high)
    return float(f"{value:.6g}")  # readable in a table, the same when it is read back


def load_sweep(spec: str) -> Sweep:
    """The sweep of `FILE:VARIANT`; a bare name is one that ships, such as `prior_lr:emoji`."""
    path, _, variant = spec.partition(":")
    module = load_module(_find(path), "get_sweep")
    sweep = module.get_sweep(variant) if variant else module.get_sweep()
    if not isinstance(sweep, Sweep):
        raise UserError(f"sweep file {path}: get_sweep must return a Sweep")
    _check(sweep, path)
    return sweep


def _find(path: str) -> pathlib.Path:
    file = pathlib.Path(path)
    if file.is_file():
        return file
    folder = preset_dir() / "sweeps"
    shipped = folder / f"{file.stem}.py"
    if shipped.is_file() and str(file) in (file.stem, f"configs/sweeps/{file.stem}.py"):
        return shipped
    names = [p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")]
    raise UserError(f"sweep file {path} does not exist{did_you_mean(file.stem, names)}")


def _check(sweep: Sweep, path: str) -> None:
    if bool(sweep.config) == bool(sweep.command):
        raise UserError(f"sweep file {path}: give either config or command")
    if bool(sweep.trials) == (sweep.space is not None):
        raise UserError(f"sweep file {path}: give either trials or space")
    if sweep.pruning and (sweep.after or sweep.objective.file != "metrics.jsonl"):
        raise UserError(f"sweep file {path}: pruning needs the curves of metrics.jsonl")
    space = sweep.space
    if space is None:
        return
    for name, parameter in space.parameters.items():
        if isinstance(parameter, Choice):
            if space.search == "cma-es":
                raise UserError(f"sweep file {path}: cma-es can't choose {name}, only numbers")
            continue
        if space.search == "grid":
            raise UserError(f"sweep file {path}: a grid needs choices, {name} is a range")
        if parameter.low >= parameter.high or (parameter.log and parameter.low <= 0):
            raise UserError(f"sweep file {path}: {name}: [{parameter.low}, {parameter.high}]")
