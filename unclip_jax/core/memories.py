"""Where an array lies: in the memory of its devices, or in that of their hosts, pinned.

Devices compute with the first; the second is larger, and a copy away.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding

HOST = "pinned_host"  # JAX's name for it


def on_host(where: NamedSharding) -> NamedSharding:
    """The same split, in the memory of the hosts."""
    return where.with_memory_kind(HOST)


def on_device(where: NamedSharding) -> NamedSharding:
    """The same split, in the memory of the devices."""
    return where.with_memory_kind("device")


def fetched(array: Any) -> Any:
    """The array itself, or its copy on the devices if it waits on their hosts."""
    where = getattr(array, "sharding", None)
    if where is None or where.memory_kind != HOST:
        return array
    return jax.device_put(array, on_device(where))
