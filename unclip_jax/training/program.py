"""The compiled step of a run and the state that it maps: all that a config says about a program.

Training runs it, `preflight` only compiles it. Both take it from here, so that a plan is of the
very step that will run. Nothing is computed and no data is read.
"""

import dataclasses

import jax

from unclip_jax.config import RunConfig, to_steps
from unclip_jax.config.duration import parse_duration
from unclip_jax.parallel import BATCH_AXES, check_batch_size
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.stages import with_rows_over
from unclip_jax.stages.stage import Stage
from unclip_jax.training import ema
from unclip_jax.training.layout import state_shardings
from unclip_jax.training.optimizer import Optimizer, learning_rate, make_optimizer
from unclip_jax.training.state import TrainState, init_state
from unclip_jax.training.step import TrainStep, make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """A step and its state.

    Attributes:
      stage: as the step calls it: on a mesh that splits weights, with its rows kept apart.
      tx: the optimiser.
      layout: a sharding for every array of the state.
      target: the state's shapes with these shardings.
      averages: names of the averages that are kept beside the first.
      step: (state, frozen, batch) -> (state, metrics), jitted; the state is donated.
    """

    stage: Stage
    tx: Optimizer
    layout: TrainState
    target: TrainState
    averages: tuple[str, ...]
    step: TrainStep


def make_program(
    config: RunConfig,
    stage: Stage,
    mesh: AnyMesh,
    *,
    dataset_size: int,
    total_steps: int,
    shapes: TrainState | None = None,
) -> Program:
    """The program of a config on a mesh.

    Args:
      dataset_size: examples of an epoch, for durations.
      total_steps: of the run, for the learning rate's schedule.
      shapes: of the state, if they are known; else the initialisation is traced for them.

    Raises:
      UserError: if the mesh does not divide the batch or the networks, or leaves too much whole.
    """
    check_batch_size(config.train.batch_size, mesh, config.train.accumulate)
    if mesh.shape["fsdp"] > 1:
        stage = with_rows_over(stage, BATCH_AXES)
    schedule = learning_rate(
        config.optim,
        warmup_steps=steps_of(config, config.optim.warmup, dataset_size, "optim.warmup"),
        total_steps=total_steps,
    )
    tx = make_optimizer(config.optim, schedule)
    start = _ema_start(config, dataset_size)
    averages = ema.further_averages(config.ema, start)
    abstract = shapes or jax.eval_shape(
        lambda: init_state(stage, tx, jax.random.key(0), averages=averages)
    )
    layout = state_shardings(abstract, config.mesh, mesh)
    return Program(
        stage=stage,
        tx=tx,
        layout=layout,
        target=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout
        ),
        averages=tuple(averages),
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
    )


def steps_of(config: RunConfig, text: str, dataset_size: int, where: str) -> int:
    """The duration `text` of the setting config.`where`, in optimiser steps."""
    return to_steps(
        text, batch_size=config.train.batch_size, dataset_size=dataset_size, where=f"config.{where}"
    )


def _ema_start(config: RunConfig, dataset_size: int) -> int:
    amount, _ = parse_duration(config.ema.start, "config.ema.start")
    return steps_of(config, config.ema.start, dataset_size, "ema.start") if amount else 0
