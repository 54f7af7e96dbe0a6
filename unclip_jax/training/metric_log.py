"""Metrics are read one step late: after the next step is dispatched, so the device never waits."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from unclip_jax.training.clock import Clock
from unclip_jax.training.startup import Startup
from unclip_jax.training.throughput import Throughput, memory_peaks
from unclip_jax.training.writers import MetricWriter

SHOWN = {"loss": "loss", "examples_per_second": "examples/s", "mfu": "MFU"}  # by the progress bar


class MetricLog:
    """Holds the newest step's metrics until the next step is on its way.

    The loop waits for the first step of a start. Its time goes into the figures of the start, and
    rates are counted from its end, so that they hold no compilation.
    """

    def __init__(
        self,
        writer: MetricWriter,
        clock: Clock,
        *,
        every: int,
        throughput: Throughput,
        startup: Startup,
        more: Callable[[], Mapping[str, float]] = dict,
    ):
        self._writer, self._clock, self._every = writer, clock, every
        self._throughput, self._startup, self._more = throughput, startup, more
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._once: dict[str, float | None] = {}  # for the next record only
        self._steps = -1  # that rates are counted over: none in the first step

    def note(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """Takes the metrics of a dispatched step; returns what the step before has to show."""
        shown = self._write_pending(force=False)
        self._pending = (step, metrics)
        if self._steps < 0:
            self._once |= self._startup.figures()
            self._clock.window()
        return shown

    def flush(self) -> None:
        """Writes what is held, whether due or not: before a save and at the end."""
        self._write_pending(force=True)

    def _write_pending(self, force: bool) -> dict[str, float]:
        if self._pending is None:
            return {}
        step, metrics = self._pending
        self._pending = None
        self._steps += 1
        if step % self._every and not force:
            return {}
        values: dict[str, float | None] = {
            name: float(np.asarray(value)) for name, value in metrics.items()
        }
        values |= {**self._rates(), **memory_peaks(), **self._more(), **self._once}
        self._once = {}
        self._writer.scalars(step, values)
        shown = {label: values.get(name) for name, label in SHOWN.items()}
        return {label: value for label, value in shown.items() if value is not None}

    def _rates(self) -> dict[str, float | None]:
        """Rates since the last record; none if that was only the first step."""
        values: dict[str, float | None] = {"train_seconds": self._clock.seconds()}
        if self._steps:
            length, waiting = self._clock.window()
            values |= self._throughput.figures(self._steps / length)
            values["data_wait_fraction"] = waiting
        self._steps = 0
        return values
