"""Comparing trials: a table, the best one, and which settings matter. A function of the folder."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unclip_jax.config.sweeps import Sweep
from unclip_jax.sweeps.trials import DONE, Trial, canonical

_BINS = 4


def settings(trials: Sequence[Trial]) -> list[str]:
    """The names of all settings that trials override, in order of appearance."""
    return list(dict.fromkeys(name for trial in trials for name in trial.overrides))


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials from the best on, then the others by number."""
    sign = 1 if sweep.objective.goal == "minimize" else -1
    finished = [trial for trial in trials if trial.status == DONE and trial.value is not None]
    finished.sort(key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    done = {trial.id for trial in finished}
    return finished + [trial for trial in trials if trial.id not in done]


def best(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """The best finished trial."""
    first = ranked(sweep, trials)[:1]
    return first[0] if first and first[0].status == DONE else None


def rows(sweep: Sweep, trials: Sequence[Trial]) -> list[list[str]]:
    """The table, its head first; the best trial on top."""
    names = settings(trials)
    table = [["trial", *names, sweep.objective.name, "status", "folder"]]
    for trial in ranked(sweep, trials):
        value = "" if trial.value is None else f"{trial.value:.6g}"
        cells = [text(trial.overrides.get(name, "")) for name in names]
        status = f"{trial.status}: {trial.text}" if trial.text else trial.status
        table.append([str(trial.number), *cells, value, status, f"trials/{trial.id}"])
    return table


def to_csv(table: Sequence[Sequence[str]]) -> str:
    """Comma-separated values."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue()


def to_markdown(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in table]
    widths = [max(3, *(len(row[i]) for row in lines)) for i in range(len(lines[0]))]
    shown = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([shown[0], rule, *shown[1:]]) + "\n"


def importance(trials: Sequence[Trial]) -> dict[str, float]:
    """How much of the objective's variance each setting explains by itself, from the most on.

    eta^2 = sum_g n_g (mean_g - mean)^2 / sum_i (y_i - mean)^2, over groups g of trials with equal
    values of the setting (numbers with many values: four groups of equal size). In a full grid the
    shares add up to at most 1, and the rest is interaction or noise; few trials overstate it.
    """
    finished = [trial for trial in trials if trial.status == DONE and trial.value is not None]
    values = [float(trial.value or 0.0) for trial in finished]
    if len(values) < 2:
        return {}
    mean = statistics.fmean(values)
    total = sum((value - mean) ** 2 for value in values)
    found = {}
    for name in settings(finished):
        groups: dict[str, list[float]] = {}
        for key, value in zip(_groups(finished, name), values, strict=True):
            groups.setdefault(key, []).append(value)
        between = sum(len(g) * (statistics.fmean(g) - mean) ** 2 for g in groups.values())
        found[name] = between / total if total else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _groups(trials: Sequence[Trial], name: str) -> list[str]:
    """The group of each trial: its value, or which quarter of the values that is in."""
    values: list[Any] = [trial.overrides.get(name) for trial in trials]
    different = {canonical(value) for value in values}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(different) <= 2 * _BINS or not numbers:
        return [canonical(value) for value in values]
    order = sorted(range(len(values)), key=lambda i: values[i])
    group = [""] * len(values)
    for rank, i in enumerate(order):
        group[i] = str(rank * _BINS // len(order))
    return group


def as_text(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Overrides as a command line takes them."""
    return {name: text(value) for name, value in overrides.items()}


def text(value: Any) -> str:
    """A setting's value as `--config.name=` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "(" + ",".join(text(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    return str(value)
