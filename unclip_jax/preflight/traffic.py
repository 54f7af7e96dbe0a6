"""What a step sends between chips: from a model of the mesh, or from the compiled program.

The model, with P bytes of weights in the compute dtype, A parts of a batch:

  fsdp     weights that it splits are gathered forwards and backwards in each part, 2 A P, and their
           gradients summed and scattered, A P; with fsdp_splits="optimizer" gradients P and updates
           P once, float32
  data     each device's share of the gradients is summed once: P in the compute dtype, or, of a
           batch in parts, what the parts have added up, float32
  tensor   not modelled: the activations that Megatron's scheme sums depend on the network

Bytes are as in `parallel.collectives`: of the whole array that is gathered or summed.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from unclip_jax.config import RunConfig
from unclip_jax.core import trees
from unclip_jax.parallel.collectives import Collective
from unclip_jax.preflight.topology import Topology
from unclip_jax.training.program import Program


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in a step.

    Attributes:
      kind: as HLO names it.
      link: "fast" (ICI, NVLink) or "network" (between slices, between GPU hosts).
      bytes: of all of them.
      parties: chips that take part in one.
    """

    kind: str
    link: str
    bytes: float
    parties: int

    @property
    def sent(self) -> float:
        """Bytes that one chip sends on a ring; an all-reduce goes round twice."""
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.bytes * (self.parties - 1) / self.parties


def modelled_traffic(
    config: RunConfig, program: Program, topology: Topology, itemsize: int
) -> list[Traffic]:
    """The model above."""
    mesh = next(iter(trees.flatten(program.layout.params).values())).mesh
    data, fsdp, tensor = (mesh.shape[axis] for axis in ("data", "fsdp", "tensor"))
    parts = config.train.accumulate
    split, whole, averaged = _weights(program)
    zero3 = config.mesh.fsdp_splits == "everything"
    added_up = 4 if parts > 1 else itemsize  # of a gradient, once the parts are through
    found = []
    if fsdp > 1 and zero3:
        found += _over("all-gather", 2 * parts * split * itemsize, tensor, fsdp, topology)
        found += _over("reduce-scatter", parts * split * itemsize, tensor, fsdp, topology)
    elif fsdp > 1:
        found += _over("all-gather", averaged * 4, tensor, fsdp, topology)
        found += _over("reduce-scatter", averaged * 4, tensor, fsdp, topology)
    if fsdp > 1:
        sums = whole * (parts * itemsize if zero3 else added_up)
        found += _over("all-reduce", sums, tensor, fsdp, topology)
    if data > 1:
        share = whole + (split if zero3 else averaged) / fsdp
        found += _over("all-reduce", share * added_up, fsdp * tensor, data, topology)
    return [traffic for traffic in found if traffic.bytes]


def compiled_traffic(collectives: Sequence[Collective], topology: Topology) -> list[Traffic]:
    """What a compiled program sends, summed by kind, link and number of parties."""
    total: Counter[tuple[str, str, int]] = Counter()
    for sent in collectives:
        group = sent.group or tuple(range(topology.chips))
        islands = {device // topology.island for device in group}
        link = "network" if len(islands) > 1 else "fast"
        total[sent.kind, link, max(2, len(group))] += sent.bytes * sent.times
    return [
        Traffic(kind, link, float(count), parties)
        for (kind, link, parties), count in sorted(total.items())
    ]


def seconds(traffic: Sequence[Traffic], topology: Topology) -> dict[str, float]:
    """{link: time that a chip needs to send its part}."""
    speed = {"fast": topology.fast, "network": topology.chip.network}
    return {
        link: sum(t.sent for t in traffic if t.link == link) / rate for link, rate in speed.items()
    }


def _weights(program: Program) -> tuple[float, float, float]:
    """Numbers of one tensor-share: split over fsdp, not split, split in the averages only."""
    split = whole = averaged = 0.0
    layout, averages = (
        trees.flatten(tree) for tree in (program.layout.params, program.layout.ema_params)
    )
    for path, leaf in trees.flatten(program.target.params).items():
        mesh = layout[path].mesh
        size = leaf.size / (mesh.shape["tensor"] if "tensor" in layout[path].spec else 1)
        if "fsdp" in layout[path].spec:
            split += size
        elif "fsdp" in averages[path].spec:
            averaged += size
        else:
            whole += size
    return split, whole, averaged


def _over(kind: str, size: float, stride: int, parties: int, topology: Topology) -> list[Traffic]:
    """A collective along an axis, whose members lie `stride` apart in the mesh.

    Between islands an all-reduce is made in two levels: inside each, then one share across.
    """
    inside = max(1, min(parties, topology.island // stride))
    if inside >= parties:
        return [Traffic(kind, "fast", size, parties)]
    across = parties // inside
    found = [Traffic(kind, "network", size / inside, across)]
    return [*found, Traffic(kind, "fast", size, inside)] if inside > 1 else found
