"""The loop. Its order of operations is part of the contract with resume:

    1. take a batch and the position after it, dispatch the step
    2. exchange flags with the other processes; read what is known of the step before: its metrics,
       and whether its update was left out. So reading never blocks the device
    3. validate and draw pictures when due
    4. save the state with the position that belongs to it when due

A run therefore restarts from (state, position) as if nothing had happened.
"""

import dataclasses
import enum
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from unclip_jax.parallel import Agreement
from unclip_jax.parallel.processes import is_primary
from unclip_jax.progress import progress
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.clock import Clock
from unclip_jax.training.goodput import Ledger
from unclip_jax.training.guard import Guard
from unclip_jax.training.metric_log import MetricLog
from unclip_jax.training.phases import Phases
from unclip_jax.training.profile import ProfileWindow
from unclip_jax.training.startup import Startup
from unclip_jax.training.state import TrainState
from unclip_jax.training.step import TrainStep
from unclip_jax.training.stop import StopRequest
from unclip_jax.training.throughput import Throughput
from unclip_jax.training.writers import MetricWriter


class Ending(enum.Enum):
    """Why the loop ended."""

    COMPLETE = enum.auto()
    STOPPED = enum.auto()  # by a signal; the state is saved
    BAD_DATA = enum.auto()  # by data that some process can't use; the state is saved
    TRIPPED = enum.auto()  # too many updates that were not finite; nothing is saved


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in optimiser steps."""

    total: int
    log_every: int
    checkpoint_every: int
    validate_every: int
    preview_every: int
    time_limit_seconds: float | None
    checkpoint_seconds: float | None = None
    keep_every: int | None = None


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What is done beside the steps, given (step, state)."""

    validate: Callable[[int, TrainState], dict[str, float] | None] | None
    preview: Callable[[int, TrainState], None] | None

    def run(
        self, step: int, state: TrainState, plan: Plan, writer: MetricWriter, end: bool
    ) -> bool:
        """Runs those that are due at this step, or all at the end of the run.

        Returns:
          Whether they were; False if a signal interrupted the validation.
        """
        if self.validate and (end or step % plan.validate_every == 0):
            values = self.validate(step, state)
            if values is None:
                return False
            writer.scalars(step, values)
        if self.preview and (end or step % plan.preview_every == 0):
            self.preview(step, state)
        return True


@dataclasses.dataclass(frozen=True)
class Support:
    """What the loop leans on; made once per start of the program."""

    plan: Plan
    hooks: Hooks
    checkpointer: Checkpointer
    writer: MetricWriter
    phases: Phases
    ledger: Ledger
    stop: StopRequest
    agreement: Agreement
    startup: Startup
    profile: ProfileWindow


class Loop:
    """Trains from a state and its progress to the end of the plan, a signal, or a tripped guard.

    Args:
      loader_metrics: figures of the loader, recorded beside those of the step.
      bad_data: whether this process met data that it can't use, two batches before it is due: then
        every process has a batch for the step at which all know of it, and for the one before.

    Attributes:
      state, step, position: where it stands.
    """

    def __init__(
        self,
        support: Support,
        state: TrainState,
        start: Progress,
        guard: Guard,
        *,
        name: str,
        throughput: Throughput,
        loader_metrics: Callable[[], Mapping[str, float]] = dict,
        bad_data: Callable[[], bool] = lambda: False,
    ):
        self.state, self.step, self.position = state, int(state.step), start.position
        self._support, self._start, self._guard, self._name = support, start, guard, name
        self._finds_bad_data = bad_data
        self._clock = Clock(start.seconds)
        self._log = MetricLog(
            support.writer,
            self._clock,
            every=support.plan.log_every,
            throughput=throughput,
            startup=support.startup,
            more=loader_metrics,
        )
        self._saved = time.monotonic()
        limit = support.plan.time_limit_seconds
        self._over = limit is not None and start.seconds >= limit
        self._stopped = self._save_now = self._asked_to_save = self._bad_data = False
        self._unevaluated = start.unevaluated

    def run(self, train_step: TrainStep, frozen: Any, batches: Iterator[tuple[Any, str]]) -> Ending:
        """Runs `train_step` on batches of (arrays on the devices, position after them as JSON)."""
        s = self._support
        s.ledger.note(self.step, force=True)
        if not self._ended() and s.agreement.now([self._finds_bad_data()])[0]:
            return Ending.BAD_DATA
        if self._unevaluated:
            self._evaluate(end=self._ended())
        with progress(self._name, s.plan.total, "steps", done=self.step) as advance:
            while not (self._guard.tripped or self._stopped or self._ended()):
                with s.phases("data"), self._clock.waiting():
                    batch, position = next(batches)
                advance(1, **self._take_step(train_step, frozen, batch, position))
                if not self._guard.tripped:
                    self._after_step()
            self._log.flush()
            if not self._guard.tripped:
                self._save()
        s.ledger.note(self.step, force=True)
        if self._guard.tripped:
            return Ending.TRIPPED
        if self._bad_data:
            return Ending.BAD_DATA
        complete = self._ended() and not self._unevaluated
        return Ending.COMPLETE if complete else Ending.STOPPED

    def _ended(self) -> bool:
        return self.step >= self._support.plan.total or self._over

    def _take_step(
        self, train_step: TrainStep, frozen: Any, batch: Any, position: str
    ) -> dict[str, Any]:
        """Dispatches a step; returns what the progress line is to show."""
        s, first = self._support, self._support.phases.now.phase == "start"
        s.phases.enter("compile" if first else "step", self.step)
        s.profile.before_step(self.step + 1)
        self.state, metrics = train_step(self.state, frozen, batch)
        if first:
            jax.block_until_ready(metrics)
        self.step, before, self.position = self.step + 1, self.position, position
        s.phases.enter("step", self.step)
        s.profile.after_step(self.step, metrics)
        self._exchange_flags()
        self._guard.note(self.step, before, position, metrics["skipped"])
        limit = s.plan.time_limit_seconds
        expected = self._clock.expected_steps(self.step, limit, s.plan.total)
        return {"total": expected, **self._log.note(self.step, metrics)}

    def _exchange_flags(self) -> None:
        """What any process knows: signals, time limits, bad data; the primary's clock for saves."""
        plan, stop = self._support.plan, self._support.stop
        limit, interval = plan.time_limit_seconds, plan.checkpoint_seconds
        over = limit is not None and self._clock.seconds() >= limit
        due = interval is not None and time.monotonic() - self._saved >= interval
        due = due and is_primary() and not self._asked_to_save
        self._asked_to_save |= due
        mine = [stop.signal is not None, over, due, self._finds_bad_data()]
        stopped, self._over, self._save_now, self._bad_data = self._support.agreement.exchange(mine)
        self._stopped = stopped or self._bad_data

    def _after_step(self) -> None:
        s, end = self._support, self._ended()
        if self._stopped:
            self._unevaluated = True
        else:
            self._evaluate(end)
        if self._save_now or end or self.step % s.plan.checkpoint_every == 0:
            self._save()
        s.checkpointer.check()
        s.ledger.note(self.step)

    def _evaluate(self, end: bool) -> None:
        s = self._support
        with s.phases("evaluate"):
            done = s.hooks.run(self.step, self.state, s.plan, s.writer, end)
        self._unevaluated, self._stopped = not done, self._stopped or not done

    def _save(self) -> None:
        self._guard.read()
        if self._guard.tripped:
            return
        self._log.flush()
        progress = Progress(
            self.position,
            self._clock.seconds(),
            unevaluated=self._unevaluated,
            skipped=self._guard.skipped,
            rollbacks=self._start.rollbacks,
        )
        with self._support.phases("save"):
            self._support.checkpointer.save(self.step, self.state, progress)
        self._saved, self._asked_to_save = time.monotonic(), False
        self._support.ledger.note(self.step, force=True)
