"""How the state of a run lies on a mesh.

`fsdp_splits="everything"` splits parameters, moments and averages over `fsdp` (ZeRO-3): weights are
gathered where they are used. With "optimizer" (ZeRO-2) parameters stay whole over `fsdp`, gradients
are reduced into the parts whose moments a device holds, and the updates are gathered once a step.
"""

import dataclasses
from typing import Any

import jax

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.parallel import BATCH_AXES, ShardingRules, check_split
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.stages import logical_axes
from unclip_jax.training.state import TrainState


def state_shardings(abstract: TrainState, config: MeshConfig, mesh: AnyMesh) -> TrainState:
    """A `NamedSharding` for every array of the state.

    Raises:
      UserError: if the mesh does not divide the networks, or leaves too much whole.
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
    return layout


def axes_with_whole_weights(layout: TrainState) -> tuple[str, ...]:
    """The axes of more than one device that split the batch and no parameter."""
    leaves = jax.tree.leaves(layout.params)
    split = {axis for leaf in leaves for axis in leaf.spec}
    sizes = leaves[0].mesh.shape
    return tuple(axis for axis in BATCH_AXES if axis not in split and sizes[axis] > 1)
