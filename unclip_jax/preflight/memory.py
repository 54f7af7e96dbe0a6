"""What one chip holds during a step, in bytes, by kind.

State, frozen weights and batch follow from shapes and shardings, exactly. The rest is a model:

  activations  residuals of the loss under its remat policy for the rows that a chip computes at a
               time (`stage_cost`), an upper bound of what XLA keeps
  temporaries  gradients in the parts in which they are summed, float32; weights gathered whole, in
               the compute dtype, of the layer in use and the next; the results in the largest
               rematerialised block and their gradients, float32, in which fusions hold them

The compiler says the last two together, exactly (`compiled.py`).
"""

import dataclasses
import math
from typing import Any

import jax

from unclip_jax.core import trees
from unclip_jax.core.memories import HOST
from unclip_jax.preflight.stage_cost import StageCost
from unclip_jax.training.program import Program


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip; `host`, of its moments that wait in its host's memory, are beside them."""

    parameters: float
    optimizer: float
    averages: float
    frozen: float
    batch: float
    activations: float
    temporaries: float
    host: float

    @property
    def total(self) -> float:
        """All that is on the chip."""
        return sum(dataclasses.astuple(self)) - self.host


def analytic_memory(
    program: Program, frozen: Any, batch: Any, cost: StageCost, rows: float, itemsize: int
) -> Memory:
    """The model above.

    Args:
      frozen, batch: shapes with shardings.
      cost: of one example of the stage.
      rows: that a chip computes at a time.
      itemsize: bytes of a number of the compute dtype.
    """
    state = program.target
    recomputed = 2 * cost.block_numbers * 4 * rows
    gradients = held(state.ema_params)
    return Memory(
        **_known(program, frozen, batch),
        activations=cost.activation_bytes * rows,
        temporaries=gradients + gathered(program, itemsize) + recomputed,
    )


def compiled_memory(program: Program, frozen: Any, batch: Any, temporaries: float) -> Memory:
    """With the compiler's word for activations and temporaries, which it does not tell apart."""
    return Memory(**_known(program, frozen, batch), activations=0.0, temporaries=temporaries)


def _known(program: Program, frozen: Any, batch: Any) -> dict[str, float]:
    state = program.target
    return {
        "parameters": held(state.params),
        "optimizer": held(state.opt_state) + held(state.memory),
        "averages": held(state.ema_params) + held(state.averages),
        "frozen": held(frozen),
        "batch": held(batch),
        "host": held(state.opt_state, on_host=True),
    }


def held(tree: Any, *, on_host: bool = False) -> float:
    """Bytes of a tree of shapes with shardings that one device holds, or has on its host."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
            if (leaf.sharding.memory_kind == HOST) == on_host
        )
    )


def gathered(program: Program, itemsize: int) -> float:
    """Bytes of the two largest arrays that `fsdp` splits, each of one layer, gathered."""
    sizes = [size * itemsize for _, size, axes in layers_of_parameters(program) if "fsdp" in axes]
    return float(sum(sorted(sizes)[-2:]))


def layers_of_parameters(program: Program) -> list[tuple[str, int, tuple[str, ...]]]:
    """(path, numbers that one layer of it has when gathered over `fsdp`, axes that split it)."""
    found = []
    layout = trees.flatten(program.layout.params)
    for path, leaf in trees.flatten(program.target.params).items():
        spec = layout[path].spec
        axes = tuple(axis for axis in spec if axis)
        tensor = layout[path].mesh.shape["tensor"] if "tensor" in axes else 1
        layers = leaf.shape[0] if "blocks" in path.split("/") else 1
        found.append((path, leaf.size // tensor // layers, axes))
    return found
