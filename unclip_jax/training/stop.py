"""A polite end: SIGTERM and SIGINT let the loop save first; a second signal ends it at once."""

import signal
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """A context in which the first signal only sets `signal`."""

    signal: int | None = None

    def __enter__(self) -> Self:
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
