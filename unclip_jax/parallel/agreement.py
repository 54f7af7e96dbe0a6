"""Flags that any process may raise, and that all processes see at the same step.

Every step each process hands in its flags (a signal came, time is over …); their maximum over all
processes is one tiny collective, dispatched behind the step and read when the next step is on its
way. So no device waits, and all processes act alike at the same step, one step late. A process on
its own sees its flags at once.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Agreement:
    """Exchanges flags among the processes of a mesh; all must call alike."""

    def __init__(self, mesh: Mesh):
        self._layout = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(functools.partial(jnp.max, axis=0), out_shardings=everywhere)
        self._pending: jax.Array | None = None

    def exchange(self, flags: Sequence[bool]) -> list[bool]:
        """Hands in this step's flags; returns those of the step before, of any process."""
        if jax.process_count() == 1:
            return list(flags)
        before, self._pending = self._pending, self._reduce(flags)
        return [False] * len(flags) if before is None else _read(before)

    def now(self, flags: Sequence[bool]) -> list[bool]:
        """The flags of any process, waiting for all of them."""
        if jax.process_count() == 1:
            return list(flags)
        return _read(self._reduce(flags))

    def _reduce(self, flags: Sequence[bool]) -> jax.Array:
        mine = np.tile(np.array(flags, np.int32), (jax.local_device_count(), 1))
        return self._any(jax.make_array_from_process_local_data(self._layout, mine))


def _read(flags: jax.Array) -> list[bool]:
    return [bool(flag) for flag in np.asarray(flags)]
