"""What stays the same while a run lasts: its mesh, data, durations in steps, and compiled step."""

import dataclasses
import pathlib
from typing import Any

from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.parallel import make_mesh
from unclip_jax.stages.stage import Stage
from unclip_jax.training.begin import Fresh, Initial, place_replicated
from unclip_jax.training.datasets import held_out_data, training_data
from unclip_jax.training.loop import Plan
from unclip_jax.training.program import make_program, steps_of
from unclip_jax.training.state import TrainState
from unclip_jax.training.step import TrainStep
from unclip_jax.training.throughput import Throughput


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
      frozen: on all devices.
      target: shapes and shardings of the state.
      fresh: how a new state is made.
      step: the compiled step.
      throughput: what turns its rate into figures.
    """

    config: RunConfig
    stage: Stage
    workdir: pathlib.Path
    mesh: Mesh
    frozen: Any
    dataset: data.Dataset | data.Mixture
    held_out: data.Dataset | None
    plan: Plan
    target: TrainState
    fresh: Fresh
    step: TrainStep
    throughput: Throughput

    @property
    def batch_size(self) -> int:
        """Examples of the global batch."""
        return self.config.train.batch_size


def set_up(
    config: RunConfig,
    stage: Stage,
    frozen: Any,
    workdir: pathlib.Path,
    initial: Initial | None,
    flops_per_example: float | None = None,
) -> Run:
    """The run that a config describes, its state not yet made."""
    mesh = make_mesh(config.mesh)
    dataset = training_data(config.data, stage.needs)
    plan = make_plan(config, len(dataset))
    program = make_program(config, stage, mesh, dataset_size=len(dataset), total_steps=plan.total)
    return Run(
        config=config,
        stage=program.stage,
        workdir=workdir,
        mesh=mesh,
        frozen=place_replicated(frozen, mesh),
        dataset=dataset,
        held_out=held_out_data(config.data, stage.needs),
        plan=plan,
        target=program.target,
        fresh=Fresh(
            program.stage,
            program.tx,
            config.seed,
            program.layout,
            initial,
            config.init.only,
            averages=program.averages,
        ),
        step=program.step,
        throughput=Throughput.here(config.train.batch_size, flops_per_example),
    )


def make_plan(config: RunConfig, dataset_size: int) -> Plan:
    """The config's durations in steps."""
    t = config.train

    def steps(text: str, name: str) -> int:
        return steps_of(config, text, dataset_size, f"train.{name}")

    def seconds(minutes: float | None) -> float | None:
        return None if minutes is None else 60 * minutes

    return Plan(
        total=steps(t.duration, "duration"),
        log_every=t.log_every,
        checkpoint_every=steps(t.checkpoint_every, "checkpoint_every"),
        validate_every=steps(t.validate_every, "validate_every"),
        preview_every=steps(t.preview.every, "preview.every"),
        time_limit_seconds=seconds(t.time_limit_minutes),
        checkpoint_seconds=seconds(t.checkpoint_minutes),
        keep_every=None if t.keep_every is None else steps(t.keep_every, "keep_every"),
    )
