"""One training run: from a config, a stage and its frozen parameters to a trained workdir."""

import contextlib
import pathlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.core import trees
from unclip_jax.data.device import Prefetch, needed_rows, to_global_arrays
from unclip_jax.errors import SharedError, UserError
from unclip_jax.parallel import Agreement, Cluster, batch_sharding
from unclip_jax.parallel.processes import gather, is_primary, report, say, what_each_sees
from unclip_jax.stages.stage import Stage
from unclip_jax.training import run_facts
from unclip_jax.training import workdir as workdirs
from unclip_jax.training.begin import Beginning, Initial, begin
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.datasets import training_batches
from unclip_jax.training.evaluation import Validation
from unclip_jax.training.goodput import Ledger
from unclip_jax.training.guard import Guard
from unclip_jax.training.loop import Ending, Hooks, Loop, Support
from unclip_jax.training.phases import Phases
from unclip_jax.training.preview import make_previewer
from unclip_jax.training.profile import ProfileWindow
from unclip_jax.training.rollback import roll_back
from unclip_jax.training.setup import Run, set_up
from unclip_jax.training.startup import Startup
from unclip_jax.training.stop import StopRequest
from unclip_jax.training.storage import storage_errors
from unclip_jax.training.trackers import open_trackers
from unclip_jax.training.watchdog import Watchdog
from unclip_jax.training.writers import MetricWriter, NoWriter


def train(
    config: RunConfig,
    stage: Stage,
    frozen: Any,
    workdir: pathlib.Path,
    *,
    initial: Initial | None = None,
    cluster: Cluster | None = None,
    flops_per_example: float | None = None,
) -> bool:
    """Trains until the config's duration, from where `begin.py` says.

    Args:
      frozen: parameters that the stage only reads, equal on all processes; {} if none.
      workdir: the run's directory, the same for all processes; made if missing.
      initial: what a new run begins with instead of drawn parameters.
      cluster: the processes that were joined, for messages.
      flops_per_example: of training, for MFU (`preflight.stage_flops`); None leaves that out.

    Returns:
      Whether training is complete; False if a signal stopped it (its state is saved).
    """
    phases = Phases()
    with contextlib.ExitStack() as resources:
        startup = resources.enter_context(Startup(tell=partial(_record_startup, workdir)))
        resources.enter_context(storage_errors(workdir))
        stop = StopRequest(lambda: jax.process_count() == 1 and phases.before_first_step)
        resources.enter_context(stop)
        workdirs.prepare(config, workdir)
        resources.enter_context(_watchdog(config, phases, workdir))
        run = set_up(config, stage, frozen, workdir, initial, flops_per_example)
        resources.enter_context(jax.set_mesh(run.mesh))
        same = {"examples": len(run.dataset), "data fingerprint": run.dataset.fingerprint[:12]}
        everyone = what_each_sees(cluster, same)
        say(report(cluster, everyone))
        checkpointer = Checkpointer(workdir, config.train.keep_checkpoints, run.plan.keep_every)
        resources.callback(checkpointer.close)
        ending, step = _train(run, checkpointer, phases, stop, startup, everyone)
        checkpointer.wait()
        if ending is Ending.COMPLETE:
            workdirs.mark_done(workdir, step)
    return ending is Ending.COMPLETE


def _record_startup(workdir: pathlib.Path, figures: dict[str, float]) -> None:
    if is_primary():
        run_facts.amend(workdir, startup=figures)


def _watchdog(config: RunConfig, phases: Phases, workdir: pathlib.Path) -> Watchdog:
    return Watchdog(
        phases,
        workdir,
        jax.process_index(),
        start_seconds=60 * config.faults.start_minutes,
        stall_seconds=60 * config.faults.stall_minutes,
    )


def _train(
    run: Run,
    checkpointer: Checkpointer,
    phases: Phases,
    stop: StopRequest,
    startup: Startup,
    everyone: list[dict[str, Any]],
) -> tuple[Ending, int]:
    """(why it ended, at which step); goes back and on again as often as the guard may ask."""
    config, workdir = run.config, run.workdir

    def begin_again() -> Beginning:
        fingerprint = run.dataset.fingerprint
        return begin(config, workdir, checkpointer, run.target, fingerprint, run.fresh)

    begun = begin_again()
    while True:
        say(f"parameters: {begun.source}")
        if is_primary():
            run_facts.write(workdir, _facts(run, begun, everyone))
        guard = Guard(config.faults, begun.progress.skipped)
        ending, step = _attempt(run, begun, guard, checkpointer, phases, stop, startup)
        if ending is not Ending.TRIPPED:
            return ending, step
        phases.enter("start")
        begun = roll_back(
            config.faults, workdir, checkpointer, begun.progress, guard.skipped, begin_again
        )


def _attempt(
    run: Run,
    begun: Beginning,
    guard: Guard,
    checkpointer: Checkpointer,
    phases: Phases,
    stop: StopRequest,
    startup: Startup,
) -> tuple[Ending, int]:
    """(why it ended, at which step) of training from one beginning."""
    with contextlib.ExitStack() as resources:
        writer = _writer(run, int(begun.state.step)) if is_primary() else NoWriter()
        resources.callback(writer.close)
        profile = ProfileWindow(run.config.train.profile, run.workdir)
        resources.callback(profile.close)
        agreement = Agreement(run.mesh)  # a new one: flags of a failed attempt end with it

        def interrupted() -> bool:
            return agreement.now([stop.signal is not None])[0]

        support = Support(
            plan=run.plan,
            hooks=_hooks(run, writer, interrupted),
            checkpointer=checkpointer,
            writer=writer,
            phases=phases,
            ledger=Ledger(run.workdir if is_primary() else None, phases),
            stop=stop,
            agreement=agreement,
            startup=startup,
            profile=profile,
        )
        batches = resources.enter_context(_batches(run, begun.progress))
        ahead = resources.enter_context(contextlib.closing(_on_device(run, batches)))
        ahead.fill()
        loop = Loop(
            support,
            begun.state,
            begun.progress,
            guard,
            name=run.stage.name,
            throughput=run.throughput,
            loader_metrics=batches.metrics,
            bad_data=lambda: _found(batches, ahead) is not None,
        )
        ending = loop.run(run.step, run.frozen, ahead)
        if ending is Ending.BAD_DATA:
            checkpointer.wait()
            raise _bad_data(_found(batches, ahead))
    return ending, loop.step


@contextlib.contextmanager
def _batches(run: Run, start: Progress) -> Iterator[data.TrainBatches]:
    """Host batches from a position on: of each, the rows that this process's own devices hold."""
    batches = training_batches(
        run.config,
        run.dataset,
        data.DataPosition.from_json(start.position) if start.position else None,
        rows=needed_rows(batch_sharding(run.mesh), run.batch_size),
        quarantine=str(run.workdir / f"bad_samples.{jax.process_index()}.jsonl"),
    )
    try:
        yield batches
    finally:
        batches.close()


def _on_device(run: Run, batches: data.TrainBatches) -> Prefetch:
    """(batch, position after it) with the batch on the devices, two ahead of the loop."""
    layout = batch_sharding(run.mesh)
    rows = needed_rows(layout, run.batch_size)

    def convert(item: tuple[dict[str, np.ndarray], data.DataPosition]) -> Any:
        batch, position = item
        arrays = to_global_arrays(batch, layout, batch_size=run.batch_size, rows=rows)
        return arrays, position.to_json()

    return Prefetch(batches, convert)


def _found(batches: data.TrainBatches, ahead: Prefetch) -> str | None:
    """What this process can't use of the data; None if all is well."""
    unreadable = str(ahead.error) if isinstance(ahead.error, UserError) else None
    return batches.bad.too_many or unreadable


def _bad_data(found: str | None) -> SharedError:
    """One error for all processes, each of which tells what it found."""
    everyone = gather({"host": socket.gethostname(), "found": found})
    if len(everyone) == 1:
        return SharedError(found)
    named = [f"process {i} on {it['host']}: {it['found']}" for i, it in enumerate(everyone)]
    return SharedError(
        "; ".join(line for line, it in zip(named, everyone, strict=True) if it["found"])
    )


def _writer(run: Run, resume_step: int) -> MetricWriter:
    trackers = open_trackers(run.config, run.workdir, resume_step)
    return MetricWriter(run.workdir, resume_step, trackers)


def _hooks(run: Run, writer: MetricWriter, interrupted: Any) -> Hooks:
    config, stage, frozen, held_out = run.config, run.stage, run.frozen, run.held_out
    previewer = make_previewer(config, stage, frozen, held_out, run.mesh, run.workdir, writer)
    if held_out is None:
        return Hooks(validate=None, preview=previewer)
    validation = Validation(config, stage, frozen, held_out, run.mesh, interrupted)
    return Hooks(validate=validation, preview=previewer)


def _facts(run: Run, begun: Beginning, everyone: list[dict[str, Any]]) -> dict[str, Any]:
    return run_facts.collect(
        stage=run.config.stage,
        begun=begun.source,
        resumed_from_step=int(begun.state.step) or None,
        parameters=trees.count(begun.state.params),
        data={"examples": len(run.dataset), "fingerprint": run.dataset.fingerprint},
        processes=everyone,
    )
