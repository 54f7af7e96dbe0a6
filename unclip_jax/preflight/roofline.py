"""The least time of a step on a machine: no operation faster than arithmetic and memory allow.

    compute   sum over operations of  passes * max(padded FLOPs / peak, bytes / HBM bandwidth)
              + one pass of the optimiser over the state
    step      max(compute, bytes sent / fast links, bytes sent / network)

Passes: 3 of what is trained (forward, gradients of inputs and of weights), 1 more if it is
recomputed, 1 of what is frozen. Channels are rounded up to the width of the matrix unit, which is
what the hardware spends. Elementwise work is free and communication hides behind arithmetic: real
steps take longer, and `attained` says by how much. Its default of a half
is an assumption: no step was timed on these machines.

Source: Williams et al. 2009 (Roofline).
"""

import dataclasses
from collections.abc import Sequence

from unclip_jax.preflight.chips import Chip
from unclip_jax.preflight.memory import Memory
from unclip_jax.preflight.stage_cost import StageCost
from unclip_jax.preflight.topology import Topology
from unclip_jax.preflight.traffic import Traffic, seconds

ATTAINED = 0.5


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of one step at the bound.

    Attributes:
      compute, optimizer, fast, network: of the four parts.
      useful: at the peak, of useful FLOPs alone.
    """

    compute: float
    optimizer: float
    fast: float
    network: float
    useful: float

    @property
    def step(self) -> float:
        """The whole step."""
        return max(self.compute + self.optimizer, self.fast, self.network)

    @property
    def mfu(self) -> float:
        """Useful FLOPs over the peak."""
        return self.useful / self.step

    @property
    def bound_by(self) -> str:
        """What takes the longest."""
        parts = {
            "arithmetic and HBM": self.compute + self.optimizer,
            "fast links": self.fast,
            "network": self.network,
        }
        return max(parts, key=lambda name: parts[name])


def step_time(
    cost: StageCost,
    memory: Memory,
    traffic: Sequence[Traffic],
    topology: Topology,
    *,
    rows: float,
    parts: int,
    tensor: int,
    recomputes_products: bool,
) -> StepTime:
    """The bound of a step.

    Args:
      rows: examples that a group of `tensor` chips computes at a time, in each of `parts` parts.
      recomputes_products: whether rematerialised blocks run their products again.
    """
    chip = topology.chip
    once = sum(
        _passes(o.trained, o.recomputed and recomputes_products)
        * o.times
        * max(
            o.padded(chip.unit) * rows / tensor / chip.peak,
            (o.rows_bytes * rows + o.fixed_bytes) / tensor / chip.bandwidth,
        )
        for o in cost.operations
    )
    sent = seconds(traffic, topology)
    return StepTime(
        compute=once * parts,
        optimizer=_optimizer_bytes(memory) / chip.bandwidth,
        fast=sent["fast"],
        network=sent["network"],
        useful=cost.flops.train * rows * parts / tensor / chip.peak,
    )


def assumptions(topology: Topology) -> str:
    """The figures that an estimate rests on."""
    chip: Chip = topology.chip
    joined = "ICI" if topology.is_tpu else "NVLink"
    return (
        f"{chip.name}: {chip.peak / 1e12:g} TFLOP/s bfloat16, {chip.hbm / 2**30:.2f} GiB of HBM at "
        f"{chip.bandwidth / 1e12:g} TB/s, {joined} {topology.fast / 1e9:g} GB/s and network "
        f"{chip.network / 1e9:g} GB/s a chip"
    )


def _passes(trained: bool, recomputed: bool) -> int:
    return (3 if trained else 1) + (1 if trained and recomputed else 0)


def _optimizer_bytes(memory: Memory) -> float:
    """State read and written, gradients (as large as the averages) read."""
    return 2 * (memory.parameters + memory.optimizer + memory.averages) + memory.averages
