"""A polite end: the first SIGTERM or SIGINT lets the loop save, a second one ends at once.

Python runs signal handlers between two bytecodes of the main thread, which may be waiting for a
device. So a thread reads the signals from a pipe that Python's C handler writes to. Enter this
after `jax.distributed.initialize`, which would otherwise install a SIGTERM handler of its own.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from unclip_jax.errors import EXIT_STOPPED

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A context in which the first signal only sets `signal`, and the second ends the process.

    Args:
      nothing_to_save: whether a first signal may end the process at once.
    """

    def __init__(self, nothing_to_save: Callable[[], bool]):
        self.signal: int | None = None
        self._nothing_to_save = nothing_to_save

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._handlers = {s: signal.signal(s, _leave_to_the_thread) for s in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._writing)  # which ends the thread
        self._thread.join()
        os.close(self._reading)

    def _read(self) -> None:
        while number := os.read(self._reading, 1):
            if number[0] in _SIGNALS:
                self._note(number[0])

    def _note(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.signal is not None:
            _end(128 + number, f"{name} again: ended at once")
        if self._nothing_to_save():
            _end(EXIT_STOPPED, f"{name} before the first step: there is nothing to save")
        self.signal = number
        print(f"unclip: {name}: saving, then stopping", file=sys.stderr, flush=True)


def _end(code: int, line: str) -> None:
    print(f"unclip: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def _leave_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Without a handler of Python's, nothing would be written to the pipe."""
