"""The loop. Its order of operations is part of the contract with resume:

    1. take a batch and the position after it, dispatch the step
    2. write the metrics of the step before, so that reading never blocks the device
    3. validate and draw pictures when due
    4. save the state with the position that belongs to it when due

A run therefore restarts from (state, position) as if nothing had happened.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from unclip_jax.progress import progress
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.clock import Clock
from unclip_jax.training.metric_log import MetricLog
from unclip_jax.training.state import TrainState
from unclip_jax.training.step import TrainStep
from unclip_jax.training.stop import StopRequest
from unclip_jax.training.writers import MetricWriter


@dataclasses.dataclass(frozen=True)
class Plan:
    """When things happen, in optimiser steps."""

    total: int
    log_every: int
    checkpoint_every: int
    validate_every: int
    preview_every: int
    time_limit_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What is done beside the steps, given (step, state)."""

    validate: Callable[[int, TrainState], dict[str, float]] | None
    preview: Callable[[int, TrainState], None] | None

    def run(
        self, step: int, state: TrainState, plan: Plan, writer: MetricWriter, end: bool
    ) -> None:
        """Runs those that are due at this step, or all at the end of the run."""
        if self.validate and (end or step % plan.validate_every == 0):
            writer.scalars(step, self.validate(step, state))
        if self.preview and (end or step % plan.preview_every == 0):
            self.preview(step, state)


def run_loop(
    state: TrainState,
    frozen: Any,
    batches: Iterator[tuple[Any, str]],
    train_step: TrainStep,
    *,
    name: str,
    plan: Plan,
    hooks: Hooks,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    start: Progress,
    batch_size: int,
    loader_metrics: Callable[[], Mapping[str, float]] = dict,
) -> tuple[TrainState, bool]:
    """Trains from `state` to the end of the plan.

    Args:
      batches: of (batch on the devices, position after it as JSON).
      loader_metrics: figures of the loader, recorded beside those of the step.

    Returns:
      The last state, and whether the plan was completed (False: a signal stopped it). The state
      is saved in either case.
    """
    step, position = int(state.step), start.position
    clock = Clock(start.seconds)
    log = MetricLog(writer, clock, every=plan.log_every, batch_size=batch_size, more=loader_metrics)

    def ended() -> bool:
        over = plan.time_limit_seconds is not None and clock.seconds() >= plan.time_limit_seconds
        return step >= plan.total or over

    with StopRequest() as stop, progress(name, plan.total, "steps", done=step) as advance:
        end = ended()
        while not end and stop.signal is None:
            with clock.waiting():
                batch, position = next(batches)
            state, metrics = train_step(state, frozen, batch)
            step += 1
            expected = clock.expected_steps(step, plan.time_limit_seconds, plan.total)
            advance(1, total=expected, **log.note(step, metrics))
            end = ended()
            hooks.run(step, state, plan, writer, end)
            if end or step % plan.checkpoint_every == 0:
                log.flush()
                checkpointer.save(step, state, Progress(position, clock.seconds()))
        log.flush()
        checkpointer.save(step, state, Progress(position, clock.seconds()))
    return state, stop.signal is None
