"""Runs that a scheduler starts and restarts: the launcher submits, follows the log, and cancels.

The job carries its own restart policy, so nothing is lost when the launcher ends; a launcher that
comes back finds the job by the name that it recorded.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Protocol

from .attempt import Show
from .exits import ExitClass, Verdict
from .hosts import HostLost
from .record import Record
from .spec import RunSpec

POLL_SECONDS = 2.0
UNREACHABLE_LIMIT = 30  # questions in a row that the scheduler did not answer


@dataclass(frozen=True)
class JobState:
    """What the scheduler says; `kind` is set when the job is over."""

    text: str
    kind: ExitClass | None = None


class Scheduler(Protocol):
    """Something that runs jobs. Its methods raise `HostLost` when it does not answer."""

    async def submit(self, record: Record, attempt: int) -> str:
        """Hands the run over, unless it was before; returns the job's name."""
        ...

    async def state(self, record: Record, job: str) -> JobState:
        """Where the job is."""
        ...

    async def new_log(self, record: Record, job: str) -> list[str]:
        """Lines of the log that were not returned before."""
        ...

    async def cancel(self, record: Record, job: str, grace: float) -> None:
        """Ends the job for good."""
        ...


async def supervise(record: Record, scheduler: Scheduler, show: Show) -> ExitClass:
    """Looks after a job until it is over; the caller holds the record's lock."""
    state = record.state
    if state.phase == "over":
        return ExitClass[state.result]
    if not state.job:
        job = await scheduler.submit(record, state.attempt)
        state = record.change(phase="running", job=job)
        show(f"launch: {record.name} is job {job}")
    verdict = await _follow(record, scheduler, state.job, show)
    record.change(phase="over", result=verdict.kind.name, text=verdict.text)
    record.clear_stop()
    show(f"launch: {record.name} is over ({verdict.kind.name.lower()}): {verdict.text}")
    return verdict.kind


async def _follow(record: Record, scheduler: Scheduler, job: str, show: Show) -> Verdict:
    said, unanswered, stopping = "", 0, False
    while True:
        grace = record.stop_request()
        if grace is not None and not stopping:
            stopping = True
            await scheduler.cancel(record, job, grace)
        try:
            state = await scheduler.state(record, job)
            with contextlib.suppress(HostLost):
                for line in await scheduler.new_log(record, job):
                    show(line)
            unanswered = 0
        except HostLost as lost:
            unanswered += 1
            if unanswered >= UNREACHABLE_LIMIT:
                return Verdict(ExitClass.LOST, None, str(lost))
            state = JobState(f"no answer: {lost}")
        if state.text != said:
            said = state.text
            show(f"launch: job {job}: {said}")
        if state.kind is not None:
            kind = (
                ExitClass.STOPPED if stopping and state.kind is not ExitClass.DONE else state.kind
            )
            return Verdict(kind, None, "it was stopped" if stopping else state.text)
        await asyncio.sleep(POLL_SECONDS)


def job_name(spec: RunSpec) -> str:
    """A name that schedulers take."""
    return spec.name.replace("_", "-").replace(".", "-")
