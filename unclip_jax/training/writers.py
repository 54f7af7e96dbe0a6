"""Where metrics go: one JSON object per line, and TensorBoard event files beside it.

`metrics.jsonl` is the record that our own tools read. A resumed run cuts it back to the step that
it resumes from, so each step stands in it once.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends metrics of a step to `workdir/metrics.jsonl` and to TensorBoard."""

    def __init__(self, workdir: pathlib.Path, resume_step: int):
        path = workdir / "metrics.jsonl"
        _truncate(path, resume_step)
        self._file = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one record; a value that is not finite becomes null in the JSON."""
        record: dict[str, Any] = {"step": step}
        for name, value in values.items():
            record[name] = float(value) if math.isfinite(value) else None
            if math.isfinite(value):
                self._events.add_scalar(name, value, step)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Adds a picture (uint8 [H, W, 3]) to TensorBoard."""
        self._events.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._events.close()


class NoWriter(MetricWriter):
    """Of the processes that write nothing, since one of them writes for all."""

    def __init__(self) -> None:
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
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
