"""What SLURM's queue holds of this user's jobs: one question for all runs that are followed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from unclip_jax.errors import UserError

from .hosts import HostLost, Ran, ThisMachine
from .scheduled import POLL_SECONDS

_OVER = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL"}
_OVER |= {"DEADLINE", "OUT_OF_MEMORY", "REVOKED"}


@dataclass(frozen=True)
class Queued:
    """A job in the queue, or one task of an array, whose `job` is then NUMBER_INDEX."""

    job: str
    state: str
    reason: str
    comment: str

    def of(self, job: str) -> bool:
        """Whether it is this job, or a task of this array."""
        return job in (self.job, self.job.partition("_")[0])


class Queue:
    """squeue, asked no more often than every `POLL_SECONDS`, whoever wants to know."""

    def __init__(self) -> None:
        self._asked: asyncio.Task[Sequence[Queued]] | None = None
        self._at = 0.0

    async def lately(self) -> Sequence[Queued]:
        """Jobs that are not over, as of a moment ago; `HostLost` if SLURM does not answer."""
        asked = self._asked
        other_loop = asked is not None and asked.get_loop() is not asyncio.get_running_loop()
        if asked is None or other_loop or time.monotonic() - self._at >= POLL_SECONDS:
            self._at = time.monotonic()
            self._asked = asked = asyncio.create_task(_ask())
        return await asyncio.shield(asked)

    async def now(self) -> Sequence[Queued]:
        """The same, asked anew."""
        self.forget()
        return await self.lately()

    def forget(self) -> None:
        """There are new jobs in it."""
        self._asked = None


async def _ask() -> Sequence[Queued]:
    form = "--format=%i|%T|%r|%k"
    ran = await _on_this_machine("squeue", "--me", "--array", "--noheader", form)
    if ran.code:
        raise HostLost(ran.errors.decode(errors="replace").strip())
    rows = (line.strip().split("|", 3) for line in ran.output.decode().splitlines())
    found = [Queued(*row) for row in rows if len(row) == 4]
    return [queued for queued in found if queued.state not in _OVER]


async def run(*argv: str) -> str:
    """What one of SLURM's commands prints; raises `UserError` if it fails."""
    ran = await _on_this_machine(*argv)
    if ran.code:
        raise UserError(f"{argv[0]}: {ran.errors.decode(errors='replace').strip()}")
    return ran.output.decode()


async def _on_this_machine(*argv: str) -> Ran:
    try:
        return await ThisMachine().run(argv)
    except FileNotFoundError:
        raise UserError(f"no {argv[0]} here: launch from a machine that has SLURM") from None
