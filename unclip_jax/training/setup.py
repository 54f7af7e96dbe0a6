"""What stays the same while a run lasts: its mesh, data, durations in steps, and compiled step."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig, to_steps
from unclip_jax.config.duration import parse_duration
from unclip_jax.parallel import BATCH_AXES, check_batch_size, make_mesh
from unclip_jax.stages import with_rows_over
from unclip_jax.stages.stage import Stage
from unclip_jax.training import ema
from unclip_jax.training.begin import Fresh, Initial, place_replicated
from unclip_jax.training.datasets import held_out_data, training_data
from unclip_jax.training.layout import state_shardings
from unclip_jax.training.loop import Plan
from unclip_jax.training.optimizer import learning_rate, make_optimizer
from unclip_jax.training.state import TrainState, init_state
from unclip_jax.training.step import TrainStep, make_train_step
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
    check_batch_size(config.train.batch_size, mesh, config.train.accumulate)
    if mesh.shape["fsdp"] > 1:
        stage = with_rows_over(stage, BATCH_AXES)
    dataset = training_data(config.data, stage.needs)
    plan = make_plan(config, len(dataset))
    schedule = learning_rate(
        config.optim,
        warmup_steps=_steps(config, config.optim.warmup, len(dataset), "optim.warmup"),
        total_steps=plan.total,
    )
    tx = make_optimizer(config.optim, schedule)
    start = _ema_start(config, len(dataset))
    averages = ema.further_averages(config.ema, start)
    abstract = _abstract_state(stage, tx, averages)
    layout = state_shardings(abstract, config.mesh, mesh)
    return Run(
        config=config,
        stage=stage,
        workdir=workdir,
        mesh=mesh,
        frozen=place_replicated(frozen, mesh),
        dataset=dataset,
        held_out=held_out_data(config.data, stage.needs),
        plan=plan,
        target=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout
        ),
        fresh=Fresh(
            stage, tx, config.seed, layout, initial, config.init.only, averages=tuple(averages)
        ),
        step=make_train_step(
            stage,
            tx,
            schedule,
            ema_decay=ema.decay_schedule(config.ema.decay, warmup=config.ema.warmup, start=start),
            seed=config.seed,
            mesh=mesh,
            state_shardings=layout,
            accumulate=config.train.accumulate,
            averages=averages,
        ),
        throughput=Throughput.here(config.train.batch_size, flops_per_example),
    )


def make_plan(config: RunConfig, dataset_size: int) -> Plan:
    """The config's durations in steps."""
    t = config.train

    def steps(text: str, name: str) -> int:
        return _steps(config, text, dataset_size, f"train.{name}")

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


def _steps(config: RunConfig, text: str, dataset_size: int, where: str) -> int:
    return to_steps(
        text, batch_size=config.train.batch_size, dataset_size=dataset_size, where=f"config.{where}"
    )


def _ema_start(config: RunConfig, dataset_size: int) -> int:
    amount, _ = parse_duration(config.ema.start, "config.ema.start")
    return _steps(config, config.ema.start, dataset_size, "ema.start") if amount else 0


def _abstract_state(
    stage: Stage, tx: optax.GradientTransformation, averages: Iterable[str]
) -> TrainState:
    return jax.eval_shape(lambda: init_state(stage, tx, jax.random.key(0), averages=averages))
