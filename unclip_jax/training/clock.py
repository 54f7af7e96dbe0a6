"""Training time, carried over restarts, and the share of it spent waiting for data."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator


@dataclasses.dataclass
class Clock:
    """Counts seconds since the run's first start, pauses between attempts left out."""

    seconds_before: float
    start: float = dataclasses.field(default_factory=time.monotonic)
    mark: float = dataclasses.field(default_factory=time.monotonic)
    waited: float = 0.0
    first_step: tuple[int, float] | None = None

    def expected_steps(self, step: int, limit: float | None, most: int) -> int:
        """The step at which `limit` seconds of training will be over, or `most` if that is less.

        The rate is that since the first call, so the first step's compilation does not count.
        """
        now = self.seconds()
        if self.first_step is None:
            self.first_step = (step, now)
        taken = step - self.first_step[0]
        if limit is None or not taken:
            return most
        seconds_per_step = (now - self.first_step[1]) / taken
        return min(most, step + max(0, int((limit - now) / seconds_per_step)))

    def seconds(self) -> float:
        """Training time of all attempts so far."""
        return self.seconds_before + time.monotonic() - self.start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    def window(self) -> tuple[float, float]:
        """(length in seconds, share of waiting for data) of the time since the last call."""
        now = time.monotonic()
        length, waited = max(now - self.mark, 1e-9), self.waited
        self.mark, self.waited = now, 0.0
        return length, waited / length
