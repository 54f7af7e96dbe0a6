"""Running a compiled program over many examples in batches of one size, over all devices.

The last batch is filled up by repeating its last example, so that every batch has the shape that
was compiled. The batch is split over the `data` and `fsdp` axes of the mesh.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

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
    """The batch size in force: the wanted one, or what holds all examples up to a limit; rounded
    up to a multiple of the devices that share a batch."""
    if wanted is not None and wanted < 1:
        raise UserError(f"batch_size: must be positive, got {wanted}")
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    size = min(examples, LARGEST_DEFAULT_BATCH) if wanted is None else wanted
    return math.ceil(size / devices) * devices


def run_batched(
    program: Callable[..., jax.Array],
    columns: Sequence[Any],
    *,
    batch_size: int,
    mesh: Mesh,
    advance: Advance,
) -> Shaped[np.ndarray, "n *data"]:
    """program(*columns) on the host, computed batch by batch.

    Args:
      program: takes and returns arrays with the batch leading.
      columns: arrays [N, ...], N >= 1.
      batch_size: as `choose_batch_size` gives it.
      advance: told the number of examples after each batch.
    """
    total, layout = len(columns[0]), batch_sharding(mesh)
    parts = []
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        rows = np.minimum(np.arange(start, start + batch_size), total - 1)
        batch = [jax.device_put(column[rows], layout) for column in columns]
        parts.append(np.asarray(program(*batch))[:count])
        advance(count)
    return np.concatenate(parts)
