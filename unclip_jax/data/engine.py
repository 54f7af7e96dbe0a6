"""Runs a source of micro-batches on Grain: threads of this process, or worker processes.

An element is a few rows, not one: handing over an element costs as much as decoding a picture.
A source's element i belongs to step i // E and holds group i % E of that step's rows on this host;
Grain gives worker w the elements w, w + W, …, so where W divides E a worker keeps its lanes.
"""

import os
import threading
import time
import weakref

import grain
import numpy as np
from absl import flags

from unclip_jax.data.assembly import Arrays
from unclip_jax.data.report import Report
from unclip_jax.data.rows import Rows

MAX_ROWS = 32  # of one element
_ENDLESS = 1 << 48
_MAX_THREADS = 8
_PARENT_POLL_SECONDS = 1.0


def elements_per_step(groups: int, rows_per_group: int, workers: int) -> int:
    """Returns E: the fewest elements a step can be split in with at most MAX_ROWS rows each.

    E divides `groups` and is a multiple of `workers` where that is possible.
    """
    divisors = [d for d in range(1, groups + 1) if groups % d == 0]
    small = [d for d in divisors if groups // d * rows_per_group <= MAX_ROWS] or [groups]
    pinned = [d for d in small if workers and d % workers == 0]
    return (pinned or small)[0]


def run(source, per_step: int, *, workers: int, threads: int | None) -> "Steps":
    """Starts reading `source` ahead and returns its steps, `per_step` elements each."""
    if threads is None:
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
    in_process = max(1, threads // max(1, workers))
    ahead = max(2 * per_step, 2 * in_process)
    options = grain.ReadOptions(num_threads=in_process, prefetch_buffer_size=ahead)
    elements = grain.MapDataset.source(source).to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        buffer = max(1, ahead // workers)
        elements = elements.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer),
            worker_init_fn=_die_with_parent,
        )
    return Steps(iter(elements), per_step)


def _mark_flags_parsed() -> None:
    """Grain's workers read absl flags, which a program that is not an absl app never parses."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _die_with_parent(worker: int, workers: int) -> None:
    """Ends this worker when the run was killed: nobody is left to ask it to stop."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()


class Steps:
    """Joins elements into one host's batch per step; close() stops threads and workers."""

    def __init__(self, elements: grain.DatasetIterator, per_step: int):
        self._elements = elements
        self._per_step = per_step
        # Also at interpreter exit: threads that are still reading then end in a heap of errors.
        self.close = weakref.finalize(self, elements.close)

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> tuple[Arrays, Report]:
        try:
            parts = [next(self._elements) for _ in range(self._per_step)]
        except Exception:
            self.close()
            raise
        names = parts[0]["arrays"]
        arrays = {name: np.concatenate([p["arrays"][name] for p in parts]) for name in names}
        return arrays, Report.joined(part["report"] for part in parts)


class TrainSource:
    """Endless: element i is one group of this host's lanes at one step."""

    def __init__(self, assembler, order, first_position: int, per_lane: int, groups):
        self._assembler = assembler
        self._order = order
        self._first = first_position
        self._per_lane = per_lane
        self._groups = groups

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, element) -> dict:
        step, group = divmod(int(element), len(self._groups))
        start = self._first + step * self._per_lane
        spans = [(lane, start, self._per_lane) for lane in self._groups[group]]
        arrays, report = self._assembler.train_rows(self._order, spans)
        return {"arrays": arrays, "report": report.to_plain()}


class ExactSource:
    """One pass: element i is a piece of this process's rows of a batch, padded behind the last."""

    def __init__(self, assembler, batch_size: int, pieces: list[Rows]):
        self._assembler = assembler
        self._size = len(assembler.dataset)
        self._batch_size = batch_size
        self._pieces = pieces  # equal in length

    def __len__(self) -> int:
        return -(-self._size // self._batch_size) * len(self._pieces)

    def __getitem__(self, element) -> dict:
        step, part = divmod(int(element), len(self._pieces))
        rows = self._pieces[part]
        samples = step * self._batch_size + rows
        samples = samples[samples < self._size]
        arrays, report = self._assembler.exact_rows(samples)
        padding = len(rows) - len(samples)
        padded = {
            name: np.concatenate([array, np.zeros((padding, *array.shape[1:]), array.dtype)])
            for name, array in arrays.items()
        }
        return {"arrays": padded if padding else arrays, "report": report.to_plain()}
