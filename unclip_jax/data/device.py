"""Host batches -> global jax arrays, and reading two of them ahead: the one file here with jax."""

import collections
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from unclip_jax.data.rows import Rows


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


class Prefetch:
    """Iterates over convert(item) for each item, computed on a thread that keeps `size` in reserve.

    An item is given when the `size` behind it are ready, so that an error is known that many items
    before it is due. Errors of the thread are raised here; `close` stops it.

    Attributes:
      error: what ended the thread early; known before it is raised.
    """

    def __init__(self, items: Iterable[Any], convert: Callable[[Any], Any], size: int = 2):
        self.error: BaseException | None = None
        self._size = size
        self._ready: collections.deque[Any] = collections.deque()
        self._over = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, args=(items, convert), name="prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        self.fill()
        with self._changed:
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
        if self.error is not None:
            raise self.error
        raise StopIteration

    def fill(self) -> None:
        """Waits for an item and its reserve, or the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._full())

    def close(self) -> None:
        """Stops the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _full(self) -> bool:
        return len(self._ready) > self._size

    def _work(self, items: Iterable[Any], convert: Callable[[Any], Any]) -> None:
        try:
            for item in items:
                made = convert(item)
                with self._changed:
                    self._ready.append(made)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or not self._full())
                    if self._closed:
                        return
        except BaseException as error:
            self.error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
