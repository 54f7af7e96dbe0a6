"""What happened while rows were read: samples that could not be used, and where the time went."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Event(NamedTuple):
    """One sample that could not be used, or was used after mending (`caption_recoded`)."""

    reason: str
    shard: str
    ordinal: int
    key: str
    detail: str

    @property
    def is_bad(self) -> bool:
        return self.reason != "caption_recoded"


@dataclass
class Report:
    """Of some rows, in one thread: events, bytes, and seconds (of reading, of decoding)."""

    events: list[Event] = field(default_factory=list)
    bytes: int = 0
    read_seconds: float = 0.0
    slowest_read: float = 0.0
    decode_seconds: float = 0.0

    def add_read(self, size: int, seconds: float) -> None:
        self.bytes += size
        self.read_seconds += seconds
        self.slowest_read = max(self.slowest_read, seconds)

    def to_plain(self) -> dict:
        """Returns what a worker process hands over."""
        return {**vars(self), "events": [tuple(event) for event in self.events]}

    @classmethod
    def joined(cls, parts: Iterable[dict]) -> "Report":
        """Returns the report of several parts, each as `to_plain` gave it."""
        whole = cls()
        for part in parts:
            whole.events += [Event(*event) for event in part["events"]]
            whole.bytes += part["bytes"]
            whole.read_seconds += part["read_seconds"]
            whole.slowest_read = max(whole.slowest_read, part["slowest_read"])
            whole.decode_seconds += part["decode_seconds"]
        return whole


class Meter:
    """Figures of a loader since they were last asked for; reports come from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reset()

    def add(self, report: Report, rows: int) -> None:
        with self._lock:
            self._rows += rows
            self._bytes += report.bytes
            self._read += report.read_seconds
            self._decode += report.decode_seconds
            self._slowest.append(report.slowest_read)

    def take(self) -> dict[str, float]:
        """Returns rates of this process and times a sample, in milliseconds; {} before any row."""
        with self._lock:
            if not self._rows:
                return {}
            passed = max(time.monotonic() - self._since, 1e-9)
            figures = {
                "data/megabytes_per_second": self._bytes / passed / 1e6,
                "data/read_ms": 1e3 * self._read / self._rows,
                "data/read_ms_slowest_p50": 1e3 * float(np.percentile(self._slowest, 50)),
                "data/read_ms_slowest_p99": 1e3 * float(np.percentile(self._slowest, 99)),
                "data/decode_ms": 1e3 * self._decode / self._rows,
            }
            self._reset()
            return figures

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._rows = self._bytes = 0
        self._read = self._decode = 0.0
        self._slowest: list[float] = []  # one for each batch
