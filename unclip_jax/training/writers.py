"""Where metrics go: `metrics.jsonl`, and whatever else `config.train.writers` names.

`metrics.jsonl` is the record that our own tools read: one JSON object per line, always written. A
resumed run cuts it back to the step that it resumes from, so each step stands in it once.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import Console

Values = Mapping[str, float | None]  # None: not known here, such as the MFU of a CPU


class Tracker(Protocol):
    """One place where metrics are shown beside the record."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the finite values of a step."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Takes a picture, uint8 [H, W, 3]."""

    def close(self) -> None:
        """Writes what is held back."""


class MetricWriter:
    """Appends the metrics of a step to `workdir/metrics.jsonl` and hands them to the trackers."""

    def __init__(self, workdir: pathlib.Path, resume_step: int, trackers: Sequence[Tracker] = ()):
        path = workdir / "metrics.jsonl"
        _truncate(path, resume_step)
        self._file = path.open("a")
        self._trackers = trackers

    def scalars(self, step: int, values: Values) -> None:
        """Writes one record; in the JSON, None and values that are not finite are null."""
        finite = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        record = {"step": step} | {name: finite.get(name) for name in values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.scalars(step, finite)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Hands a picture (uint8 [H, W, 3]) to the trackers."""
        for tracker in self._trackers:
            tracker.image(step, name, picture)

    def close(self) -> None:
        """Closes the record and all trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class ConsoleTracker:
    """Prints each record as one line to the terminal, above the progress bar."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """`step 500  loss 0.1234 …`, in the order of the record."""
        shown = "  ".join(f"{name} [bold]{value:.4g}[/]" for name, value in values.items())
        self._console.print(f"[dim]step {step}[/]  {shown}", soft_wrap=True)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Pictures are not shown on a terminal."""

    def close(self) -> None:
        """Nothing is held back."""


class TensorBoardTracker:
    """Event files in `workdir/tensorboard`."""

    def __init__(self, workdir: pathlib.Path, resume_step: int):
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One curve per name."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """One picture per name and step."""
        self._events.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes."""
        self._events.close()


class NoWriter(MetricWriter):
    """Of the processes that write nothing, since one of them writes for all."""

    def __init__(self) -> None:
        pass

    def scalars(self, step: int, values: Values) -> None:
        """Nothing."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, oldest first; a half-written last line is left out."""
    path = workdir / "metrics.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while it wrote this line
    return records


def _truncate(path: pathlib.Path, last_step: int) -> None:
    records = [r for r in read_metrics(path.parent) if r["step"] <= last_step]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(r) + "\n" for r in records))
    fresh.replace(path)
