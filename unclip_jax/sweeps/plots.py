"""Pictures of a sweep: the objective against each setting, what matters, and the curves."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from unclip_jax.config.sweeps import Sweep
from unclip_jax.pictures import curves
from unclip_jax.sweeps import results
from unclip_jax.sweeps.trials import DONE, Trial

_BLUE, _GREY, _GREEN = "#1a73e8", "#5f6368", "#188038"
_MOST_CURVES = 8  # as many as there are colours


def slices(sweep: Sweep, trials: Sequence[Trial]) -> Image.Image:
    """One panel for each setting: the objective over its values; the best trial in green."""
    finished = [trial for trial in trials if trial.status == DONE]
    names = results.settings(finished)
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    best = results.best(sweep, trials)
    for axis, name in zip(axes, names, strict=False):
        _slice(axis, name, finished, best)
        axis.set_ylabel(sweep.objective.name, fontsize=9, color=_GREY)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return _rasterise(figure)


def _slice(axis: Axes, name: str, trials: Sequence[Trial], best: Trial | None) -> None:
    values = [trial.overrides.get(name) for trial in trials]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    labels = list(dict.fromkeys(results.text(v) for v in values))
    places: list[Any] = values if numbers else [labels.index(results.text(v)) for v in values]
    for trial, place in zip(trials, places, strict=True):
        is_best = best is not None and trial.id == best.id
        axis.plot([place], [trial.value or 0.0], "o", color=_GREEN if is_best else _BLUE, alpha=0.8)
    if not numbers:
        axis.set_xticks(range(len(labels)), labels)
    elif min(places) > 0 and max(places) >= 10 * min(places):
        axis.set_xscale("log")
    _dress(axis, name)


def importances(shares: Mapping[str, float]) -> Image.Image:
    """Bars: the share of the objective's variance that each setting explains by itself."""
    figure = Figure(figsize=(6.4, 0.9 + 0.45 * max(1, len(shares))), dpi=110, layout="constrained")
    axis = figure.subplots()
    names = list(shares)[::-1]
    axis.barh(range(len(names)), [shares[name] for name in names], color=_BLUE, height=0.6)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlim(0, 1)
    _dress(axis, "share of the variance that each setting explains")
    return _rasterise(figure)


def training_curves(
    sweep: Sweep, trials: Sequence[Trial], records: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Image.Image | None:
    """The objective over steps, of the best trials; None if no trial has a curve of it."""
    name = sweep.objective.name
    runs: dict[str, Sequence[Mapping[str, Any]]] = {}
    for trial in results.ranked(sweep, trials):
        mine = [r for r in records.get(trial.id, ()) if r.get(name) is not None]
        if mine and len(runs) < _MOST_CURVES:
            runs[f"{trial.number}: {_label(trial)}"] = mine
    return curves(runs, [name]) if runs else None


def _label(trial: Trial) -> str:
    words = [f"{k.rpartition('.')[2]}={results.text(v)}" for k, v in trial.overrides.items()]
    return " ".join(words)[:48]


def _dress(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11, color="#202124")
    axis.grid(True, color="#e8eaed", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9, colors=_GREY, length=0, which="both")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _rasterise(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
