"""Host batches -> global jax arrays, and reading two of them ahead: the one file here with jax."""

import queue
import threading
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from unclip_jax.data.rows import Rows

_END = object()


def needed_rows(
    sharding: Sharding, batch_size: int, devices: Collection[jax.Device] | None = None
) -> Rows:
    """Returns the sorted rows of a global batch that some devices hold.

    Args:
      sharding: of the batch axis, e.g. NamedSharding(mesh, P(("data", "fsdp"))).
      devices: None for those of this process: what it has to read.
    """
    places = sharding.devices_indices_map((batch_size,))
    own = sharding.addressable_devices if devices is None else devices
    spans = {places[device][0].indices(batch_size) for device in own}
    return np.unique(np.concatenate([np.arange(*span) for span in spans]))


def to_global_arrays(
    batch: dict[str, np.ndarray],
    sharding: Sharding,
    *,
    batch_size: int | None = None,
    rows: Rows | None = None,
) -> dict[str, Array]:
    """Returns global arrays whose leading axis is laid out by `sharding`.

    Args:
      batch: this process's rows, [len(rows), …] each.
      batch_size: the global one; None if `batch` has all rows.
      rows: which rows these are, from `needed_rows`; None if `batch` has all rows.
    """

    def globalise(array: np.ndarray) -> Array:
        total = len(array) if batch_size is None else batch_size
        return jax.make_array_from_callback(
            (total, *array.shape[1:]),
            sharding,
            lambda index: _held(array, rows, index, total),
        )

    return {name: globalise(array) for name, array in batch.items()}


def _held(array: np.ndarray, rows: Rows | None, index: tuple | None, total: int) -> np.ndarray:
    """Returns the part of a global array at `index`, from the rows that are held here."""
    assert index is not None  # jax types it so, and never passes it
    start, stop, _ = index[0].indices(total)
    first = start if rows is None else int(np.searchsorted(rows, start))
    return array[(slice(first, first + stop - start), *index[1:])]


def prefetch(
    items: Iterable[Any], convert: Callable[[Any], Any], size: int = 2
) -> Generator[Any, None, None]:
    """Yields convert(item) for each item, computed up to `size` ahead on a thread.

    Errors of the thread are raised here. Closing the generator stops the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=size)
    stop = threading.Event()

    def put(entry) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((convert(item), None))
                if stop.is_set():
                    return
            put((_END, None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
