"""Running a compiled program over many examples in batches of few sizes, over all devices.

Sizes are powers of two times the number of devices, so that whatever number of pictures is asked
for, few programs are compiled. A batch is filled up by repeating its last example. It is split over
the `data` and `fsdp` axes of the mesh.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key, Shaped

from unclip_jax.errors import UserError
from unclip_jax.parallel import BATCH_AXES, batch_sharding

LARGEST_DEFAULT_BATCH = 16

Advance = Callable[[int], Any]
Report = Callable[[str, int], contextlib.AbstractContextManager[Advance]]
"""(stage, number of examples) -> context manager of a function that is told how many are done."""


@contextlib.contextmanager
def no_report(stage: str, total: int) -> Iterator[Advance]:
    """The `Report` of a caller that does not watch."""
    del stage, total
    yield lambda count: None


def choose_batch_size(examples: int, wanted: int | None, mesh: Mesh) -> int:
    """The batch size in force.

    By default the smallest of 1, 2, 4, … times the devices that share a batch which holds all
    examples, up to a limit; else the wanted one, rounded up to a multiple of the devices.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"batch_size: must be positive, got {wanted}")
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if wanted is None:
        return bucket(math.ceil(min(examples, LARGEST_DEFAULT_BATCH) / devices)) * devices
    return math.ceil(wanted / devices) * devices


def bucket(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << max(0, count - 1).bit_length()


def key_data(keys: Key[Array, " n"] | Shaped[np.ndarray, "n k"]) -> Shaped[np.ndarray, "n k"]:
    """Random keys on the host; programs make keys of them again.

    Keys are then rows like any other, and no operation on them depends on how many there are.
    """
    return keys if isinstance(keys, np.ndarray) else np.asarray(jax.random.key_data(keys))


def run_batched(
    program: Callable[..., Any],
    columns: Sequence[Any],
    *,
    batch_size: int,
    mesh: Mesh,
    advance: Advance,
) -> Any:
    """program(*columns) on the host, computed batch by batch.

    Args:
      program: takes and returns pytrees of arrays with the batch leading.
      columns: pytrees of arrays [N, ...] on the host, N >= 1.
      batch_size: as `choose_batch_size` gives it.
      advance: told the number of examples after each batch.
    """
    total, layout = len(jax.tree.leaves(columns)[0]), batch_sharding(mesh)
    parts = []
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        batch = jax.tree.map(lambda column: jax.device_put(column[rows], layout), tuple(columns))  # noqa: B023
        parts.append(jax.tree.map(lambda x: np.asarray(x)[:count], program(*batch)))  # noqa: B023
        advance(count)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
