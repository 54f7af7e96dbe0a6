"""Metrics are read one step late: after the next step is dispatched, so the device never waits."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from unclip_jax.training.clock import Clock
from unclip_jax.training.writers import MetricWriter


class MetricLog:
    """Holds the newest step's metrics until the next step is on its way."""

    def __init__(
        self,
        writer: MetricWriter,
        clock: Clock,
        *,
        every: int,
        batch_size: int,
        more: Callable[[], Mapping[str, float]] = dict,
    ):
        """`more` gives figures of what runs beside the steps (the loader) for each record."""
        self._writer, self._clock, self._more = writer, clock, more
        self._every, self._batch_size = every, batch_size
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._steps = 0  # since the last record

    def note(self, step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """Takes the metrics of a dispatched step; returns what the step before has to show."""
        shown = self._write_pending(force=False)
        self._pending = (step, metrics)
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
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        length, waiting = self._clock.window()
        values["examples_per_second"] = self._steps * self._batch_size / length
        values["data_wait_fraction"] = waiting
        values["train_seconds"] = self._clock.seconds()
        values |= self._more()
        self._steps = 0
        self._writer.scalars(step, values)
        return {"loss": values["loss"]}
