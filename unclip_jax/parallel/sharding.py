"""Which part of each array lives on which device: one table, and a rule for what it leaves open.

A parameter's dimensions have logical names (`models.logical_axes`); `RULES` says over which mesh
axis a name is split. "hidden" and "heads" over `tensor` is Megatron's scheme: the first layer of a
block is split along its outputs, the second along its inputs, so that a block needs one sum over
`tensor` forwards and one backwards.

An array of at least `min_size` elements is also split over `fsdp`: along the dimension that the
table gives, else along the largest one that divides (the last of equals), never along "layers",
which a scan takes apart. Smaller arrays are not worth a gather and stay whole.

Sources: Shoeybi et al. 2019 (Megatron, arXiv 1909.08053); Rajbhandari et al. 2020 (ZeRO,
arXiv 1910.02054); Xu et al. 2021 (GSPMD, arXiv 2105.04663).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.parallel.mesh import BATCH_AXES, AnyMesh

RULES = {"embed": "fsdp", "hidden": "tensor", "heads": "tensor"}
WEIGHT_AXES = ("fsdp", "tensor")
MIN_SIZE = 2**16

Names = tuple[str | None, ...]


def no_names(path: str, ndim: int) -> Names:
    """Names for trees of which nothing is known: the size alone decides."""
    del path
    return (None,) * ndim


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """The layout of parameter-like trees on one mesh.

    Attributes:
      mesh: real or abstract.
      names: (path, number of dimensions) -> logical names.
      min_size: arrays of fewer elements are not split over `fsdp`.
    """

    mesh: AnyMesh
    names: Callable[[str, int], Names] = no_names
    min_size: int = MIN_SIZE

    def spec(self, path: str, shape: tuple[int, ...], *, fsdp: bool = True) -> PartitionSpec:
        """How the array at `path` is split; `fsdp=False` leaves that axis out.

        Raises:
          UserError: if `tensor` does not divide a dimension that it must split.
        """
        names = self.names(path, len(shape))
        axes: list[str | None] = [None] * len(shape)
        for i, name in enumerate(names):
            if RULES.get(name or "") == "tensor":
                axes[i] = self._tensor(path, name, shape[i])
        parts = self.mesh.shape["fsdp"]
        if fsdp and parts > 1 and math.prod(shape) >= self.min_size:
            free = [
                i
                for i, size in enumerate(shape)
                if axes[i] is None and names[i] != "layers" and size % parts == 0
            ]
            if free:
                named = [i for i in free if RULES.get(names[i] or "") == "fsdp"]
                axes[max(named or free, key=lambda i: (shape[i], i))] = "fsdp"
        return PartitionSpec(*axes) if any(axes) else PartitionSpec()

    def shardings(self, tree: Any, *, fsdp: bool = True) -> Any:
        """A `NamedSharding` for every leaf of a tree of arrays or shapes."""
        return trees.map_with_path(
            lambda path, x: NamedSharding(self.mesh, self.spec(path, x.shape, fsdp=fsdp)),
            tree,
        )

    def _tensor(self, path: str, name: str | None, size: int) -> str | None:
        parts = self.mesh.shape["tensor"]
        if parts == 1 or size == 1:  # of size 1 are the placeholders of a factored optimiser
            return None
        if size % parts:
            raise UserError(
                f"config.mesh.tensor={parts} does not divide {path}: its {name!r} has {size} parts"
            )
        return "tensor"


def check_split(tree: Any, shardings: Any, *, bound: float, what: str) -> None:
    """Raises `UserError` if more than `bound` of a tree's bytes is whole on every device.

    With P devices along `fsdp` x `tensor`, a device holds the share w + (1 - w) / P of the bytes
    if a share w is whole and the rest split; w is solved from what a device really holds.
    """
    share, largest = whole_share(tree, shardings)
    if share > bound:
        mesh = jax.tree.leaves(shardings)[0].mesh
        axes = " x ".join(f"{a}={mesh.shape[a]}" for a in WEIGHT_AXES if mesh.shape[a] > 1)
        raise UserError(
            f"insufficiently sharded: {axes} leaves {share:.0%} of the {what} whole on every "
            f"device, more than config.mesh.max_whole={bound:g}; the largest such array is "
            f"{largest}. Use more of config.mesh.data instead, lower config.mesh.min_size, or "
            "raise the bound"
        )


def whole_share(tree: Any, shardings: Any) -> tuple[float, str]:
    """(w of `check_split`, the array that contributes most to it)."""
    flat, layout = trees.flatten(tree), trees.flatten(shardings)
    mesh = next(iter(layout.values())).mesh
    parts = math.prod(mesh.shape[a] for a in WEIGHT_AXES)
    if parts == 1:
        return 0.0, ""
    total = {path: _bytes(x.shape, x.dtype) for path, x in flat.items()}
    held = {p: _bytes(layout[p].shard_shape(x.shape), x.dtype) for p, x in flat.items()}
    excess = {path: held[path] - total[path] / parts for path in flat}
    share = sum(excess.values()) / max(1, sum(total.values())) / (1 - 1 / parts)
    return share, max(excess, key=lambda path: excess[path])


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * dtype.itemsize


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The leading axis split over all batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
