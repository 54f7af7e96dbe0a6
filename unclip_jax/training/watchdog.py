"""Stalls: a live process whose step does not end is ended, and the stacks of its threads are kept.

JAX notices a process that died, never one that stands still: its peers wait in a collective for
ever. So every process watches itself. A thread writes `heartbeats/process_N.json` (phase, step,
time) and, when the phase has lasted longer than its limit, dumps all Python stacks to stderr and to
`stacks/process_N.txt` and ends the process with code 76. Where even that thread can't run, since
something holds Python's lock, faulthandler does the same from C, with code 1.
"""

import contextlib
import faulthandler
import json
import os
import pathlib
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Self

from unclip_jax.errors import EXIT_STALLED
from unclip_jax.training.phases import Now, Phases

_HEARTBEAT_SECONDS = 5.0
_STDERR = 2  # the descriptor, whatever sys.stderr has become
_SHORT = ("data", "step")  # the phases that the shorter limit is for


class Watchdog:
    """Watches the phases of this process while the context lasts.

    Args:
      process: its index in the run.
      start_seconds: limit on start, compilation, an evaluation, a save.
      stall_seconds: limit on one step and on waiting for its data.
    """

    def __init__(
        self,
        phases: Phases,
        workdir: pathlib.Path,
        process: int,
        *,
        start_seconds: float,
        stall_seconds: float,
    ):
        self._phases, self._process = phases, process
        self._limits = (start_seconds, stall_seconds)
        self._heartbeat = workdir / "heartbeats" / f"process_{process}.json"
        self._stacks = workdir / "stacks" / f"process_{process}.txt"
        self._poll = min(_HEARTBEAT_SECONDS, min(self._limits) / 4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            now = self._phases.now
            lasted, limit = time.monotonic() - now.since, self._limit(now)
            if lasted > limit:
                self._end(now, lasted, limit)
            faulthandler.dump_traceback_later(
                max(self._limits) + self._poll, exit=True, file=_STDERR
            )
            self._beat(now)
            if self._stop.wait(self._poll):
                return

    def _limit(self, now: Now) -> float:
        return self._limits[now.phase in _SHORT]

    def _beat(self, now: Now) -> None:
        """Tells the launcher and the reader which process is behind; a full disk stops nothing."""
        beat = {
            "step": now.step,
            "phase": now.phase,
            "time": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        with contextlib.suppress(OSError):
            self._heartbeat.parent.mkdir(exist_ok=True)
            fresh = self._heartbeat.with_suffix(".tmp")
            fresh.write_text(json.dumps(beat))
            fresh.replace(self._heartbeat)

    def _end(self, now: Now, lasted: float, limit: float) -> None:
        line = (
            f"unclip: process {self._process} has been in {now.phase!r} after step {now.step} for "
            f"{lasted:.0f} s (limit {limit:.0f} s): ended as stalled, code {EXIT_STALLED}; "
            f"the stacks of its threads are in {self._stacks}"
        )
        print(line, file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        with contextlib.suppress(OSError):
            self._stacks.parent.mkdir(exist_ok=True)
            with self._stacks.open("w") as file:
                file.write(line + "\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        os._exit(EXIT_STALLED)
