"""What this process is doing, since when, and how long it has done each thing.

One small clock that the loop sets and three others read: the watchdog (is it stuck?), the heartbeat
file (what does it do?) and the goodput ledger (where did the time go?).
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

PHASES = ("start", "compile", "data", "step", "evaluate", "save")
_NONE = dict.fromkeys(PHASES, 0.0)


class Now(NamedTuple):
    """The present: name of the phase, step of the run, monotonic time of the last sign of life."""

    phase: str
    step: int
    since: float


class Phases:
    """Begins in "start"; `with phases("data"): …` counts the time inside as that."""

    def __init__(self) -> None:
        age = process_age()
        self._mark = time.monotonic()
        self._seconds = {**_NONE, "start": age}
        self._fresh = True
        self.began = time.time() - age
        self.now = Now("start", 0, self._mark)

    @property
    def before_first_step(self) -> bool:
        """Whether nothing has been trained since the start, or since going back."""
        return self._fresh

    def enter(self, phase: str, step: int | None = None) -> None:
        """Leaves the present phase for this one."""
        mark = time.monotonic()
        self._seconds[self.now.phase] += mark - self._mark
        if phase in ("start", "step"):
            self._fresh = phase == "start"
        self._mark = mark
        self.now = Now(phase, self.now.step if step is None else step, mark)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """The phase inside a block; afterwards the one before goes on."""
        before = self.now.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def take(self) -> dict[str, float]:
        """Seconds of each phase since the last call."""
        self.enter(self.now.phase)
        taken, self._seconds = self._seconds, dict(_NONE)
        return {phase: round(taken[phase], 3) for phase in PHASES if taken[phase]}


def process_age() -> float:
    """Seconds since this process began, its imports included; 0 where /proc does not tell."""
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
