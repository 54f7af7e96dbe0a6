"""Host batches -> global jax arrays, and reading two of them ahead: the one file here with jax."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

_END = object()


def to_global_arrays(
    batch: dict[str, np.ndarray], sharding: Sharding, *, hosts: int = 1
) -> dict[str, Array]:
    """Returns global arrays whose leading axis is laid out by `sharding`.

    Args:
      batch: this process's rows, [B / hosts, …] each.
      sharding: of the batch axis, e.g. NamedSharding(mesh, P(("data", "fsdp"))).
      hosts: as given to train_batches: how many different shares the global batch has. Processes
        that hold the same rows (tensor parallelism across hosts) pass equal batches.
    """

    def globalise(array: np.ndarray) -> Array:
        shape = (array.shape[0] * hosts, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return {name: globalise(array) for name, array in batch.items()}


def prefetch(items: Iterable[Any], convert: Callable[[Any], Any], size: int = 2) -> Iterator[Any]:
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
