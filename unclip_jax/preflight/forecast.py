"""The analytic answer for one config on one machine: memory, traffic and time of a step."""

import dataclasses
import math

import jax

from unclip_jax.config import RunConfig
from unclip_jax.config.schema import ClipModel
from unclip_jax.errors import UserError
from unclip_jax.parallel import BATCH_AXES, abstract_mesh
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.preflight.abstract import Shapes, abstract_batch
from unclip_jax.preflight.abstract_step import AbstractStep, abstract_stage, abstract_step
from unclip_jax.preflight.memory import Memory, analytic_memory
from unclip_jax.preflight.roofline import StepTime, step_time
from unclip_jax.preflight.stage_cost import StageCost, stage_cost
from unclip_jax.preflight.topology import Topology
from unclip_jax.preflight.traffic import Traffic, modelled_traffic
from unclip_jax.stages.stage import Stage
from unclip_jax.training.state import TrainState

_TRACED_ROWS = 8  # whole tiles of a TPU


class Traces:
    """What is traced of a run's stage, once: mesh, batch and accumulation change none of it."""

    def __init__(self, clip: ClipModel | None):
        self._clip = clip
        self._stages: dict[str, tuple[Stage, Shapes]] = {}
        self._costs: dict[tuple[str, tuple[int, int]], StageCost] = {}
        self._state: TrainState | None = None

    def cost(self, config: RunConfig, tile: tuple[int, int]) -> StageCost:
        """Of one example, under the config's remat policy, on chips with such tiles."""
        key = config.model.remat, tile
        if key not in self._costs:
            stage, frozen = self._stage(config)
            batch = abstract_batch(stage.needs, _TRACED_ROWS, self._clip)
            self._costs[key] = stage_cost(stage, frozen, batch, tile)
        return self._costs[key]

    def step(self, config: RunConfig, mesh: AnyMesh) -> AbstractStep:
        """The train step on a mesh, by the config's accumulation and remat policy."""
        # A CLIP's loss knows in how many parts it is computed.
        stage, frozen = (
            abstract_stage(config, self._clip) if config.stage == "clip" else self._stage(config)
        )
        step = abstract_step(config, stage, frozen, self._clip, mesh, self._state)
        self._state = self._state or jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step.program.target
        )
        return step

    def _stage(self, config: RunConfig) -> tuple[Stage, Shapes]:
        """Of a batch that is computed at once."""
        policy = config.model.remat
        if policy not in self._stages:
            at_once = dataclasses.replace(config.train, accumulate=1)
            whole = dataclasses.replace(config, train=at_once)
            self._stages[policy] = abstract_stage(whole, self._clip)
        return self._stages[policy]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What the model says of a config.

    Attributes:
      rows: examples that a chip computes at a time (a group of chips, if `tensor` splits them).
      mesh: {axis: devices}.
    """

    config: RunConfig
    mesh: dict[str, int]
    rows: int
    cost: StageCost
    memory: Memory
    traffic: list[Traffic]
    time: StepTime

    def fits(self, topology: Topology) -> bool:
        """Whether the memory is enough."""
        return self.memory.total <= topology.chip.hbm


def forecast(config: RunConfig, topology: Topology, traces: Traces) -> Forecast:
    """The model's answer; seconds, most of them for tracing the network once per remat policy.

    Raises:
      UserError: if the mesh does not divide the machine, the batch or the networks.
    """
    mesh = abstract_mesh(config.mesh, topology.chips)
    if mesh.shape["data"] % topology.slices:
        raise UserError(
            f"config.mesh: data={mesh.shape['data']} does not divide over the {topology.slices} "
            "slices, and fsdp and tensor stay inside one"
        )
    step, cost = traces.step(config, mesh), traces.cost(config, topology.chip.tile)
    itemsize = 2 if config.precision.compute == "bfloat16" else 4
    parts = config.train.accumulate
    rows = config.train.batch_size // (parts * math.prod(mesh.shape[a] for a in BATCH_AXES))
    memory = analytic_memory(step.program, step.frozen, step.batch, cost, rows, itemsize)
    traffic = modelled_traffic(config, step.program, topology, itemsize)
    time = step_time(
        cost,
        memory,
        traffic,
        topology,
        rows=rows,
        parts=parts,
        tensor=mesh.shape["tensor"],
        recomputes_products=config.model.remat == "full",
    )
    return Forecast(config, dict(mesh.shape), rows, cost, memory, traffic, time)
