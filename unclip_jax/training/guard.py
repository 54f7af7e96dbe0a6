"""Updates that are not finite: left out on the device, counted here, and then acted on.

The decision is part of the compiled step and made from the loss and gradient norm of the global
batch, so every device makes the same one. A left-out update leaves parameters, moments and averages
as they were; the step counts, and its batch is spent. When `max_skipped` of the last `window` steps
were left out, the run goes back to a checkpoint before the first of them and on with the data
behind the last of them; after `max_rollbacks` of that it stops.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from unclip_jax.config.schema import Faults
from unclip_jax.errors import Diverged

Skip = tuple[int, str | None, str | None]  # step, data position before its batch, and after it


def all_finite(*values: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether every one of some global scalars is finite."""
    return jnp.all(jnp.isfinite(jnp.stack(values)))


def keep_if_finite(finite: Bool[Array, ""], new: Any, old: Any) -> Any:
    """`new` where `finite`, else `old`; trees of arrays."""
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


class Guard:
    """Counts left-out updates, one step late so that the device never waits.

    Attributes:
      skipped: those within the window, oldest first: they belong in every checkpoint.
    """

    def __init__(self, limits: Faults, skipped: Sequence[Skip]):
        self._limits = limits
        self._pending: tuple[Skip, Array] | None = None
        self.skipped: tuple[Skip, ...] = tuple(skipped)

    def note(self, step: int, before: str | None, after: str, skipped: Array) -> None:
        """Takes the flag of a dispatched step and reads that of the step before."""
        self.read()
        self._pending = ((step, before, after), skipped)

    def read(self) -> None:
        """Reads the newest flag, waiting for its step; once tripped the record stands still."""
        if self._pending is None or self.tripped:
            return
        skip, flag = self._pending
        self._pending = None
        first = skip[0] - self._limits.skip_window
        kept = tuple(old for old in self.skipped if old[0] > first)
        self.skipped = (*kept, skip) if bool(np.asarray(flag)) else kept

    @property
    def tripped(self) -> bool:
        """Whether too many were left out."""
        return len(self.skipped) >= self._limits.max_skipped


def stop_diverged(workdir: pathlib.Path, skipped: Sequence[Skip], rollbacks: int) -> Diverged:
    """Writes diverged.json, the positions of the batches for replay; returns the error to raise."""
    path = workdir / "diverged.json"
    rows = [{"step": step, "position": before} for step, before, _ in skipped]
    if jax.process_index() == 0:
        path.write_text(json.dumps(rows, indent=1))
    return Diverged(
        f"{len(skipped)} updates in steps {skipped[0][0]} to {skipped[-1][0]} were not finite, "
        f"after {rollbacks} rollbacks: stopped; {path} has the data positions of these batches. "
        "Lower config.optim.learning_rate, or look at the data"
    )
