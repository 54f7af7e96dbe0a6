"""Which part of each array lives on which device.

Parameters, optimiser state and EMA follow one size-based rule: an array of at least `MIN_SIZE`
elements is split along its largest dimension that the `fsdp` axis divides (the last of equals);
smaller ones are replicated. The same rule serves every tree, since an optimiser's moments have the
shapes of the parameters.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unclip_jax.parallel.mesh import BATCH_AXES

MIN_SIZE = 2**16


def fsdp_spec(shape: tuple[int, ...], parts: int, min_size: int = MIN_SIZE) -> PartitionSpec:
    """The split of an array of this shape over `parts` devices of the axis `fsdp`."""
    size = 1
    for dim in shape:
        size *= dim
    divisible = [i for i, dim in enumerate(shape) if dim % parts == 0]
    if parts == 1 or size < min_size or not divisible:
        return PartitionSpec()
    axis = max(divisible, key=lambda i: (shape[i], i))
    return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))


def shardings(abstract: Any, mesh: Mesh) -> Any:
    """A `NamedSharding` for every leaf of a tree of arrays or shapes."""
    parts = mesh.shape["fsdp"]
    return jax.tree.map(lambda x: NamedSharding(mesh, fsdp_spec(x.shape, parts)), abstract)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
