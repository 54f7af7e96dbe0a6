"""Which rows of the global batch a process reads: sorted row numbers, whole lanes at a time.

A process reads the rows that its own devices hold, so these follow from the sharding of the batch
(`device.needed_rows`). Two processes whose devices hold the same rows (tensor parallelism across
hosts) read the same samples, since a row is a pure function of the position.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from unclip_jax.errors import UserError

Rows = Int[np.ndarray, " rows"]


def host_rows(batch_size: int, hosts: int, host: int) -> Rows:
    """Returns the rows of host `host` where `hosts` share a batch equally: [h·B/H, (h+1)·B/H)."""
    if hosts < 1 or not 0 <= host < hosts:
        raise UserError(f"host {host} of {hosts}: hosts are numbered 0 to {hosts - 1}")
    if batch_size % hosts:
        raise UserError(f"batch size {batch_size} is not a multiple of {hosts} hosts")
    share = batch_size // hosts
    return np.arange(host * share, (host + 1) * share)


def lanes_of(rows: Rows, batch_size: int, lanes: int) -> Sequence[int]:
    """Returns the lanes that fill `rows`. Raises UserError unless these are whole lanes."""
    if batch_size % lanes:
        raise UserError(
            f"batch size {batch_size} does not fit {lanes} data lanes: it must be a multiple"
        )
    per_lane = batch_size // lanes
    mine = np.unique(rows // per_lane)
    whole = (mine[:, None] * per_lane + np.arange(per_lane)).ravel()
    if not np.array_equal(whole, rows):
        raise UserError(
            f"rows {rows[0]} to {rows[-1]} of a batch of {batch_size} do not fit {lanes} data "
            f"lanes of {per_lane} rows: use more lanes, or fewer processes"
        )
    return mine.tolist()
