"""The whole answer: does a run fit, what moves, how long does it take, and what to change."""

import dataclasses

from unclip_jax.config import RunConfig, to_steps
from unclip_jax.config.duration import parse_duration
from unclip_jax.config.schema import ClipModel
from unclip_jax.preflight.compiled import Compiled, compile_step, described_mesh
from unclip_jax.preflight.forecast import Forecast, Traces, forecast
from unclip_jax.preflight.remedies import Remedy, smallest_remedy
from unclip_jax.preflight.roofline import StepTime, step_time
from unclip_jax.preflight.topology import Topology


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is known of one config.

    Attributes:
      compiled: None where nothing was compiled.
      time: the bound, with the compiled program's traffic if there is one.
    """

    forecast: Forecast
    compiled: Compiled | None
    time: StepTime

    def fits(self, topology: Topology) -> bool:
        """The compiler's word, else the model's."""
        if self.compiled is None:
            return self.forecast.fits(topology)
        memory = self.compiled.memory
        return memory is not None and memory.total <= topology.chip.hbm


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
      answer: for the config as it is.
      remedy: what to change, if it does not fit and something helps.
      remedied: the answer with these changes.
      steps: of the run; None if its length is in epochs of unknown size.
    """

    topology: Topology
    answer: Answer
    remedy: Remedy | None
    remedied: Answer | None
    steps: int | None


def make_plan(
    config: RunConfig,
    clip: ClipModel | None,
    topology: Topology,
    *,
    compiling: bool,
    examples: int | None = None,
) -> Plan:
    """Plans a run; seconds, or minutes if it is compiled.

    Args:
      clip: the frozen CLIP's sizes, for a prior or a decoder.
      examples: of the data set, for a duration in epochs.
    """
    traces = Traces(clip)
    now = _answer(forecast(config, topology, traces), topology, traces, compiling)
    remedy = remedied = None
    if not now.fits(topology):
        remedy = smallest_remedy(now.forecast, topology, traces, _beyond_model(now))
        if remedy is not None:
            remedied = _answer(remedy.forecast, topology, traces, compiling)
    return Plan(topology, now, remedy, remedied, _steps(config, examples))


def _beyond_model(answer: Answer) -> float:
    """How many times the model's bytes the compiler needs, if it said so."""
    if answer.compiled is None:
        return 1.0
    memory = answer.compiled.memory
    needed = memory.total if memory else answer.compiled.needed
    return max(1.0, (needed or 0.0) / answer.forecast.memory.total)


def _answer(found: Forecast, topology: Topology, traces: Traces, compiling: bool) -> Answer:
    if not compiling:
        return Answer(found, None, found.time)
    mesh = described_mesh(found.config, topology)
    step = traces.step(found.config, mesh)
    compiled = compile_step(step.program, step.frozen, step.batch, mesh, topology)
    if compiled.memory is None:
        return Answer(found, compiled, found.time)
    time = step_time(
        found.cost,
        found.memory,
        compiled.traffic,
        topology,
        rows=found.rows,
        parts=found.config.train.accumulate,
        tensor=found.mesh["tensor"],
        recomputes_products=found.config.model.remat == "full",
    )
    return Answer(found, compiled, time)


def _steps(config: RunConfig, examples: int | None) -> int | None:
    where = "config.train.duration"
    unit = parse_duration(config.train.duration, where)[1]
    if unit == "epochs" and examples is None:
        return None
    size = examples or 1
    return to_steps(
        config.train.duration,
        batch_size=config.train.batch_size,
        dataset_size=size,
        where=where,
    )
