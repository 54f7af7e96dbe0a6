"""Reading checkpoints back, on any mesh and number of processes, with every array verified.

A checkpoint that is truncated, half-written or changed is not used: the newest one that is whole
is, and those after it are moved to `workdir/set_aside/` with a warning. If none is whole nothing is
moved and the run stops: starting over is not ours to decide.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from unclip_jax.core.digests import differing
from unclip_jax.errors import UserError
from unclip_jax.parallel.processes import all_processes, is_primary, say
from unclip_jax.training.checkpoint import Progress, directory, seal
from unclip_jax.training.event_loops import let_tasks_end
from unclip_jax.training.state import TrainState, as_stored

_FIELDS = {"ema": ("ema_params",), "raw": ("params",)}


class DamagedCheckpoint(Exception):
    """A checkpoint that can't be read, or reads otherwise than it was written."""


def newest_whole(
    workdir: pathlib.Path, abstract: TrainState, steps: Iterable[int], set_aside: bool = True
) -> tuple[int, TrainState, Progress] | None:
    """(step, state, progress) of the first of `steps` that is whole; None if there are no steps.

    Args:
      abstract: shapes with shardings, how the state is to be laid out; may differ from how it was.
      steps: newest first.
      set_aside: False for the checkpoints of another run: they are passed over where they are.

    Raises:
      UserError: there are checkpoints, and none is whole.
    """
    damaged: dict[int, str] = {}
    for step in steps:
        try:
            state, progress = read_state(directory(workdir) / str(step), abstract)
        except DamagedCheckpoint as error:
            damaged[step] = str(error)
            continue
        for bad, why in damaged.items():
            say(f"warning: checkpoint {bad} of {workdir} is damaged ({why}): {step} is used")
        if damaged and set_aside:
            _set_aside(workdir, damaged)
        return step, state, progress
    if damaged:
        first = next(iter(damaged.items()))
        raise UserError(
            f"no checkpoint in {directory(workdir)} can be restored (step {first[0]}: {first[1]}): "
            "bring back a copy, or move the folder away to start over"
        )
    return None


def read_state(folder: pathlib.Path, abstract: TrainState) -> tuple[TrainState, Progress]:
    """The state and progress in one checkpoint's folder; all processes must call it together.

    Raises:
      DamagedCheckpoint: on every process if any of them can't read its part.
    """
    args = ocp.args.StandardRestore(as_stored(abstract))
    fields, record = _read(folder, ocp.StandardCheckpointHandler(), args)
    state = TrainState(**fields)
    _verify(record, state)
    progress = dict(record["progress"])
    progress["skipped"] = tuple(tuple(skip) for skip in progress["skipped"])
    return state, Progress(**progress)


def load_ema_params(workdir: pathlib.Path, abstract_params: Any) -> tuple[Any, int]:
    """(averaged parameters, step) of a run's newest whole checkpoint, on this process's device."""
    return load_params(workdir, abstract_params, weights="ema")


def load_params(workdir: pathlib.Path, abstract_params: Any, *, weights: str) -> tuple[Any, int]:
    """(parameters, step) of a run's newest whole checkpoint, on this process's default device.

    Nothing else of the checkpoint is read. All processes must call it together.

    Args:
      workdir: the run's directory.
      abstract_params: the parameters' shapes, `jax.eval_shape(stage.init, key)`.
      weights: "ema" for the averaged ones, "raw" for those that the optimiser moves, or the name
        of a further average.
    """
    folder = directory(workdir)
    if not folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoints/: train it first with `unclip train`")
    damaged: dict[int, str] = {}
    for step in complete_steps(folder):
        try:
            params = read_params(folder / str(step), abstract_params, weights=weights)
        except DamagedCheckpoint as error:
            damaged[step] = str(error)
            say(f"warning: {folder / str(step)} is damaged ({error}); trying the one before")
            continue
        return params, step
    if damaged:
        raise UserError(
            f"no checkpoint in {folder} can be restored: {next(iter(damaged.values()))}"
        )
    raise UserError(f"{folder} holds no complete checkpoint")


def complete_steps(folder: pathlib.Path) -> Sequence[int]:
    """Steps of the checkpoints in a folder, newest first; those being written don't count."""
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted((int(name) for name in found if name.isdigit()), reverse=True)


def read_params(folder: pathlib.Path, abstract_params: Any, *, weights: str) -> Any:
    """The same of one checkpoint's folder; raises `DamagedCheckpoint` if they can't be had."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract_params
    )
    names = _FIELDS.get(weights, ("averages", weights))
    for name in reversed(names):
        wanted = {name: wanted}
    args = ocp.args.PyTreeRestore(
        wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=True,
    )
    restored, record = _read(folder, ocp.PyTreeCheckpointHandler(), args)
    _verify(record, restored)
    for name in names:
        restored = restored[name]
    return restored


def _read(folder: pathlib.Path, handler: Any, args: Any) -> tuple[Any, dict[str, Any]]:
    """(arrays, record) of a checkpoint; a failure on one process is a failure on all.

    The handler is called without orbax's checkpointer around it, whose barrier would make the other
    processes wait for one that failed.
    """
    problem, restored, record = None, None, {}
    let_tasks_end()
    try:
        record = json.loads((folder / "record" / "metadata").read_bytes())
        restored = handler.restore(folder / "state", args=args)
    except Exception as error:  # whatever a changed byte makes the libraries below raise
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        handler.close()
    if not all_processes(problem is None):
        raise DamagedCheckpoint(problem or "another process could not read it")
    return restored, record


def _verify(record: dict[str, Any], tree: Any) -> None:
    body = {key: value for key, value in record.items() if key != "seal"}
    if record.get("seal") != seal(body) or "digests" not in body:
        raise DamagedCheckpoint("its record has changed since it was written")
    wrong = differing(body["digests"], tree)
    if wrong:
        more = f" and {len(wrong) - 1} more arrays" if len(wrong) > 1 else ""
        raise DamagedCheckpoint(f"the checksum of {wrong[0]}{more} is wrong")


def _set_aside(workdir: pathlib.Path, steps: Iterable[int]) -> None:
    for step in steps if is_primary() else ():
        target = workdir / "set_aside" / str(step)
        target.parent.mkdir(exist_ok=True)
        while target.exists():
            target = target.with_name(target.name + "_")
        (directory(workdir) / str(step)).rename(target)
    all_processes(True)  # nobody lists the folder before the moves are done
