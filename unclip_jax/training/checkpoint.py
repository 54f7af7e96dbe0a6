"""Checkpoints: state and data position in one atomic save, written behind the training's back.

A thin layer over orbax, so that only this file knows its interface. `save` returns when the arrays
are copied to the host; a killed process leaves either a whole checkpoint or none.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from unclip_jax.errors import UserError
from unclip_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is saved beside the arrays: the data position (JSON) and the training time so far."""

    position: str | None
    seconds: float


class Checkpointer:
    """Saves and restores the checkpoints of one workdir."""

    def __init__(self, workdir: pathlib.Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(_directory(workdir), options=options)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: Progress) -> None:
        """Starts a save; a step that is already saved is left alone."""
        if step == self.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        self._manager.save(step, args=items)

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, Progress]:
        """The checkpoint of `step`, laid out as `abstract` (shapes with shardings) says."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], Progress(**restored["progress"])

    def close(self) -> None:
        """Waits for the last save; raises if it failed."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_ema_params(workdir: pathlib.Path, abstract_params: Any) -> tuple[Any, int]:
    """(averaged parameters, step) of a run's newest checkpoint, on the default device.

    Args:
      workdir: the run's directory.
      abstract_params: the parameters' shapes, `jax.eval_shape(stage.init, key)`.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} holds no checkpoints/: train it first with `unclip train`")
    options = ocp.CheckpointManagerOptions(read_only=True)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract_params
    )
    with ocp.CheckpointManager(_directory(workdir), options=options) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{workdir}/checkpoints holds no complete checkpoint")
        wanted = {"ema_params": target}
        item = ocp.args.PyTreeRestore(
            wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        restored = manager.restore(step, args=ocp.args.Composite(state=item))
    return restored["state"]["ema_params"], step


def _directory(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.absolute() / "checkpoints"
