"""How the state of a run lies on a mesh.

`fsdp_splits="everything"` splits parameters, moments and averages over `fsdp` (ZeRO-3): weights are
gathered where they are used. With "optimizer" (ZeRO-2) parameters stay whole over `fsdp`, gradients
are reduced into the parts whose moments a device holds, and the updates are gathered once a step.

`moments="host"` keeps those of large arrays in the memory of the devices' hosts between updates;
`update.py` takes them apart along their leading axis.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import NamedSharding

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.core.memories import HOST, on_host
from unclip_jax.errors import UserError
from unclip_jax.parallel import BATCH_AXES, ShardingRules, check_split
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.stages import logical_axes
from unclip_jax.training.state import TrainState


def state_shardings(abstract: TrainState, config: MeshConfig, mesh: AnyMesh) -> TrainState:
    """A `NamedSharding` for every array of the state.

    Raises:
      UserError: if the mesh does not divide the networks or leaves too much whole, or if no moments
        are large enough for the host.
    """
    rules = ShardingRules(mesh, logical_axes, config.min_size)
    zero3 = config.fsdp_splits == "everything"
    layout = rules.shardings(abstract)
    layout = dataclasses.replace(layout, params=rules.shardings(abstract.params, fsdp=zero3))
    split: dict[str, Any] = {"averages": (abstract.ema_params, layout.ema_params)}
    if zero3:
        split["parameters"] = (abstract.params, layout.params)
    for what, (tree, shardings) in split.items():
        check_split(tree, shardings, bound=config.max_whole, what=what)
    if config.moments == "host":
        moments = _waiting(abstract.opt_state, layout.opt_state, config.min_size)
        layout = dataclasses.replace(layout, opt_state=moments)
    return layout


def _waiting(moments: Any, layout: Any, min_size: int) -> Any:
    """The layout with the arrays on the host that have a leading axis of slices worth a copy."""

    def moved(x: Any, where: NamedSharding) -> NamedSharding:
        leading = x.ndim > 1 and x.shape[0] > 1 and not (where.spec and where.spec[0])
        worth = leading and x.size // x.shape[0] >= min_size
        return on_host(where) if worth else where

    placed = jax.tree.map(moved, moments, layout)
    if all(where.memory_kind != HOST for where in jax.tree.leaves(placed)):
        raise UserError(
            "config.mesh.moments=host moves nothing: no array's slices along its leading axis have "
            f"config.mesh.min_size={min_size} elements; leave moments on the devices"
        )
    return placed


def axes_with_whole_weights(layout: TrainState) -> tuple[str, ...]:
    """The axes of more than one device that split the batch and no parameter."""
    leaves = jax.tree.leaves(layout.params)
    split = {axis for leaf in leaves for axis in leaf.spec}
    sizes = leaves[0].mesh.shape
    return tuple(axis for axis in BATCH_AXES if axis not in split and sizes[axis] > 1)
