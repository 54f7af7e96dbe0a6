"""The count of samples that could not be used, and the limit above which a run stops."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unclip_jax.data.report import Event
from unclip_jax.errors import UserError


class BadSamples:
    """Counts events by reason.

    Args:
      limit: share of bad rows, of at least `after` of them, above which there are too many.
      quarantine: JSON-lines file that gets one line for each event.

    Attributes:
      rows: rows delivered by this process since it started.
      counts: reason -> number.
      too_many: what to say of it since there were too many; good rows that follow change nothing.
    """

    def __init__(self, limit: float, after: int = 10_000, quarantine: str | None = None):
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.too_many: str | None = None
        self._bad = 0
        self._limit = limit
        self._after = after
        self._quarantine = Path(quarantine) if quarantine else None

    def metrics(self) -> dict[str, float]:
        """Returns the bad share of this process's rows and the count of each reason."""
        share = self._bad / max(self.rows, 1)
        counts = {f"data/bad/{reason}": float(n) for reason, n in self.counts.items()}
        return {"data/bad_fraction": share, **counts}

    def record(self, events: Iterable[Event], rows: int) -> None:
        """Counts the events of so many rows."""
        events = list(events)
        self.rows += rows
        self._bad += sum(event.is_bad for event in events)
        self.counts.update(event.reason for event in events)
        if self._quarantine and events:
            with self._quarantine.open("a", encoding="utf-8") as file:
                for event in events:
                    file.write(json.dumps(event._asdict()) + "\n")
        self._look()

    def _look(self) -> None:
        if self.too_many or self.rows < self._after or self._bad <= self._limit * self.rows:
            return
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.counts.most_common())
        self.too_many = (
            f"{self._bad} bad samples in {self.rows} rows ({reasons}), over {self._limit:.1%}; "
            "look at them with `unclip data lint`, or raise max_bad_fraction"
        )

    def check(self) -> None:
        """Raises UserError if there are too many."""
        if self.too_many is not None:
            raise UserError(self.too_many)
