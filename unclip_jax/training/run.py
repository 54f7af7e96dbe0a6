"""One training run: from a config, a stage and its frozen parameters to a trained workdir.

workdir/config.json      the resolved config
        run.json         facts of every start
        checkpoints/     state and data position
        metrics.jsonl    and tensorboard/
        bad_samples.P.jsonl  samples that process P could not use
        samples/         pictures drawn during training
        done.json        written when the plan is completed
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig, to_mapping, to_steps
from unclip_jax.core import trees
from unclip_jax.data.device import needed_rows, prefetch, to_global_arrays
from unclip_jax.errors import UserError
from unclip_jax.parallel import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    replicated,
    shardings,
)
from unclip_jax.stages.stage import Stage
from unclip_jax.training import run_facts
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.datasets import held_out_data, training_batches, training_data
from unclip_jax.training.evaluation import Validation
from unclip_jax.training.loop import Hooks, Plan, run_loop
from unclip_jax.training.optimizer import learning_rate, make_optimizer
from unclip_jax.training.preview import Previewer
from unclip_jax.training.state import TrainState, init_state
from unclip_jax.training.step import make_train_step
from unclip_jax.training.writers import MetricWriter

MAY_CHANGE = ("train", "sampling", "mesh", "data")  # settings that a resumed run may alter


def train(config: RunConfig, stage: Stage, frozen: Any, workdir: pathlib.Path) -> bool:
    """Trains until the config's duration; resumes from the newest checkpoint if there is one.

    Args:
      frozen: parameters that the stage reads but does not train; {} if none.
      workdir: the run's directory; made if missing.

    Returns:
      Whether training is complete; False if a signal stopped it (its state is saved).
    """
    workdir = _prepare(config, workdir)
    mesh = make_mesh(config.mesh)
    check_batch_size(config.train.batch_size, mesh)
    dataset = training_data(config.data, stage.needs)
    held_out = held_out_data(config.data, stage.needs)
    plan = make_plan(config, len(dataset))
    schedule = learning_rate(
        config.optim,
        warmup_steps=_steps(config, config.optim.warmup, len(dataset), "optim.warmup"),
        total_steps=plan.total,
    )
    tx = make_optimizer(config.optim, schedule)
    with jax.set_mesh(mesh), contextlib.ExitStack() as resources:
        checkpointer = Checkpointer(workdir, keep=config.train.keep_checkpoints)
        resources.callback(checkpointer.close)
        state, start, layout = _start(config, stage, tx, mesh, checkpointer)
        batches = training_batches(
            config,
            dataset,
            data.DataPosition.from_json(start.position) if start.position else None,
            rows=needed_rows(batch_sharding(mesh), config.train.batch_size),
            quarantine=str(workdir / f"bad_samples.{jax.process_index()}.jsonl"),
        )
        resources.callback(batches.close)
        run_facts.write(workdir, _facts(config, dataset, state))
        writer = MetricWriter(workdir, resume_step=int(state.step))
        resources.callback(writer.close)
        frozen = jax.device_put(frozen, replicated(mesh))
        train_step = make_train_step(
            stage,
            tx,
            schedule,
            ema_decay=config.ema.decay,
            seed=config.seed,
            mesh=mesh,
            state_shardings=layout,
        )
        state, completed = run_loop(
            state,
            frozen,
            _on_device(batches, config.train.batch_size, mesh),
            train_step,
            name=stage.name,
            plan=plan,
            hooks=_hooks(config, stage, frozen, held_out, workdir, mesh, writer),
            checkpointer=checkpointer,
            writer=writer,
            start=start,
            batch_size=config.train.batch_size,
            loader_metrics=batches.metrics,
        )
    if completed:
        (workdir / "done.json").write_text(json.dumps({"step": int(state.step)}))
    return completed


def make_plan(config: RunConfig, dataset_size: int) -> Plan:
    """The config's durations in steps."""
    t = config.train
    limit = None if t.time_limit_minutes is None else 60 * t.time_limit_minutes
    return Plan(
        total=_steps(config, t.duration, dataset_size, "train.duration"),
        log_every=t.log_every,
        checkpoint_every=_steps(config, t.checkpoint_every, dataset_size, "train.checkpoint_every"),
        validate_every=_steps(config, t.validate_every, dataset_size, "train.validate_every"),
        preview_every=_steps(config, t.preview.every, dataset_size, "train.preview.every"),
        time_limit_seconds=limit,
    )


def _steps(config: RunConfig, text: str, dataset_size: int, where: str) -> int:
    return to_steps(
        text, batch_size=config.train.batch_size, dataset_size=dataset_size, where=f"config.{where}"
    )


def _start(
    config: RunConfig, stage: Stage, tx: Any, mesh: Mesh, checkpointer: Checkpointer
) -> tuple[TrainState, Progress, Any]:
    """(state, progress, layout): the newest checkpoint, or a fresh state born sharded."""

    def init() -> TrainState:
        return init_state(stage, tx, jax.random.fold_in(jax.random.key(config.seed), 0))

    abstract = jax.eval_shape(init)
    layout = shardings(abstract, mesh)
    step = checkpointer.latest_step()
    if step is None:
        return jax.jit(init, out_shardings=layout)(), Progress(None, 0.0), layout
    target = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, layout
    )
    state, progress = checkpointer.restore(step, target)
    return state, progress, layout


def _on_device(
    batches: data.TrainBatches, batch_size: int, mesh: Mesh
) -> Iterator[tuple[dict[str, jax.Array], str]]:
    """(batch, position after it) with the batch on the devices, two ahead of the loop."""
    layout = batch_sharding(mesh)
    rows = needed_rows(layout, batch_size)

    def convert(item: tuple[dict[str, np.ndarray], data.DataPosition]) -> Any:
        batch, position = item
        arrays = to_global_arrays(batch, layout, batch_size=batch_size, rows=rows)
        return arrays, position.to_json()

    return prefetch(batches, convert)


def _hooks(
    config: RunConfig,
    stage: Stage,
    frozen: Any,
    held_out: data.Dataset | None,
    workdir: pathlib.Path,
    mesh: Mesh,
    writer: MetricWriter,
) -> Hooks:
    if held_out is None:
        return Hooks(validate=None, preview=None)
    validation = Validation(config, stage, frozen, held_out, mesh)
    if stage.preview is None or not config.train.preview.examples:
        return Hooks(validate=validation, preview=None)
    previewer = Previewer(config, stage, frozen, held_out, workdir, writer)
    return Hooks(validate=validation, preview=previewer)


def _prepare(config: RunConfig, workdir: pathlib.Path) -> pathlib.Path:
    """Makes the workdir and writes config.json, or refuses one that holds another run."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't make the workdir {workdir}: {error.strerror}") from None
    path = workdir / "config.json"
    mine = to_mapping(config)
    if path.exists():
        theirs = json.loads(path.read_text())
        for name, ours, other in _differences(mine, theirs):
            raise UserError(
                f"{workdir} holds a run with config.{name}={other!r}, but {ours!r} is asked for: "
                "give another --workdir, or the run's own settings"
            )
    path.write_text(json.dumps(mine, indent=2))
    return workdir


def _differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    flat_mine, flat_theirs = _flat(mine), _flat(theirs)
    return [
        (name, value, flat_theirs.get(name))
        for name, value in flat_mine.items()
        if name.split(".")[0] not in MAY_CHANGE and value != flat_theirs.get(name)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _facts(
    config: RunConfig, dataset: data.Dataset | data.Mixture, state: TrainState
) -> dict[str, Any]:
    return run_facts.collect(
        stage=config.stage,
        resumed_from_step=int(state.step) or None,
        parameters=trees.count(state.params),
        data={"examples": len(dataset), "fingerprint": dataset.fingerprint},
    )
