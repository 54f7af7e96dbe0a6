"""Curves of metrics over steps, from the records of one run or of several.

Each panel shows one quantity: metrics whose names end alike ("loss", "validation/loss") share it.
Noisy curves are drawn faintly, with a smooth one in front: a Gaussian average over neighbours on
both sides (so it does not lag), sum_j k(i - j) x_j / sum_j k(i - j) over the finite x_j.
A value that was not finite is shown as a red cross on the floor of the panel, not left out.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter
from PIL import Image

Records = Sequence[Mapping[str, Any]]

_COLORS = ("#1a73e8", "#e8710a", "#188038", "#9334e6", "#d01884", "#12858d", "#7c5a2b", "#5f6368")
_PANEL_INCHES = (5.2, 3.2)
_MAX_COLUMNS = 3
_FEW_POINTS = 15
_MANY_POINTS = 60
_NOISY_TURNS = 0.25
_SMOOTHING = 0.012
_LOG_SCALE_RATIO = 20.0


def curves(
    runs: Mapping[str, Records],
    metrics: Sequence[str] | None = None,
    *,
    title: str | None = None,
    dpi: int = 110,
) -> Image.Image:
    """Draws metrics over steps, one panel for each quantity.

    Args:
      runs: the records of each run, by its name; a record holds "step" and numbers, or None where
        a number was not finite, as in `metrics.jsonl`. One run may have any name.
      metrics: which metrics, in order; None means all.
      title: written at the top.
      dpi: pixels an inch; a panel is 5.2 by 3.2 inches.

    Raises:
      ValueError: no record, or a metric that no record has.
    """
    known = dict.fromkeys(
        name for records in runs.values() for record in records for name in record if name != "step"
    )
    chosen = list(known) if metrics is None else list(metrics)
    missing = [name for name in chosen if name not in known]
    if missing or not chosen:
        raise ValueError(f"no records of {missing or 'any metric'} (there are: {list(known)})")
    panels: dict[str, list[str]] = {}
    for name in chosen:
        panels.setdefault(name.rpartition("/")[2], []).append(name)

    columns = 2 if len(panels) == 4 else min(_MAX_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1] + (0.5 if title else 0)),
        dpi=dpi,
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
        facecolor="white",
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (quantity, names) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, quantity, names, runs)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    return _rasterise(figure)


def _draw_panel(
    axis: Axes, quantity: str, names: Sequence[str], runs: Mapping[str, Records]
) -> None:
    lines = 0
    smooth_values = [np.empty(0)]
    for run, records in runs.items():
        for name in names:
            rows = [(record["step"], record[name]) for record in records if name in record]
            if not rows:
                continue
            steps = np.array([step for step, _ in rows], dtype=np.float64)
            values = np.array([value for _, value in rows], dtype=np.float64)  # None becomes NaN
            label = name if len(runs) == 1 else run if len(names) == 1 else f"{run}: {name}"
            smooth = _draw_line(axis, steps, values, label, _COLORS[lines % len(_COLORS)])
            smooth_values.append(smooth[np.isfinite(smooth)])
            lines += 1
    shown = np.concatenate(smooth_values)
    if shown.size and shown.min() > 0 and shown.max() > _LOG_SCALE_RATIO * shown.min():
        axis.set_yscale("log")
    _dress(axis, quantity)
    if lines > 1:
        axis.legend(frameon=False, fontsize=9)


def _draw_line(
    axis: Axes,
    steps: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    label: str,
    color: str,
) -> Float[np.ndarray, " n"]:
    """Draws one metric; returns the values of its main line."""
    smooth = values
    marker = "o" if len(values) <= _FEW_POINTS else None
    if is_noisy(values):
        smooth = smoothed(values, _SMOOTHING * len(values))
        axis.plot(steps, values, color=color, alpha=0.22, linewidth=0.8)
    axis.plot(steps, smooth, color=color, linewidth=1.8, label=label, marker=marker, markersize=4)
    bad = steps[~np.isfinite(values)]
    if bad.size:
        floor = axis.get_xaxis_transform()  # x in steps, y from 0 to 1 over the panel
        axis.plot(bad, np.full_like(bad, 0.02), "x", color="#d93025", transform=floor)
    return smooth


def is_noisy(values: Float[np.ndarray, " n"]) -> bool:
    """Whether a long curve goes up and down from point to point (pure noise turns 2 times in 3)."""
    finite = values[np.isfinite(values)]
    if len(finite) < _MANY_POINTS:
        return False
    directions = np.sign(np.diff(finite))
    return float(np.mean(directions[1:] * directions[:-1] < 0)) > _NOISY_TURNS


def smoothed(values: Float[np.ndarray, " n"], width: float) -> Float[np.ndarray, " n"]:
    """The Gaussian average of the finite values around each point; `width` is one sigma, in points.

    NaN where no finite value lies within four sigma.
    """
    reach = math.ceil(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    finite = np.isfinite(values)
    inside = slice(reach, reach + len(values))
    total = np.convolve(np.where(finite, values, 0.0), kernel)[inside]
    weight = np.convolve(finite.astype(np.float64), kernel)[inside]
    return np.divide(total, weight, out=np.full(len(values), math.nan), where=weight > 0)


def _dress(axis: Axes, quantity: str) -> None:
    axis.set_title(quantity.replace("_", " "), loc="left", fontsize=11, color="#202124")
    axis.set_xlabel("step", fontsize=9, color="#5f6368")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.tick_params(labelsize=9, colors="#5f6368", length=0, which="both")
    axis.grid(True, color="#e8eaed", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#bdc1c6")


def _rasterise(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
