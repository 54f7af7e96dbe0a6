"""Checkpoints: state and data position in one atomic save, written behind the training's back.

A thin layer over orbax, so that only this file and `restore.py` know its interface. `save` returns
when the arrays are copied to the host; a killed process leaves either a whole checkpoint or none.
Orbax does not notice a flipped bit, so each save carries digests of its arrays (core/digests.py)
and a seal of what stands beside them; `restore.py` compares both.
"""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from unclip_jax.core.digests import digests
from unclip_jax.training.event_loops import let_tasks_end
from unclip_jax.training.state import TrainState, as_stored


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is saved beside the arrays.

    Attributes:
      position: of the data, as JSON; None before the first batch.
      seconds: training time so far.
      unevaluated: a signal interrupted the evaluation that was due at this step.
      skipped: steps whose update was left out lately, each with the data positions before its batch
        and after it (`guard.py`).
      rollbacks: how many times the run went back.
    """

    position: str | None
    seconds: float
    unevaluated: bool = False
    skipped: tuple[tuple[int, str | None, str | None], ...] = ()
    rollbacks: int = 0


class Checkpointer:
    """Saves the checkpoints of one workdir and keeps the newest, and one of every so many steps."""

    def __init__(self, workdir: pathlib.Path, keep: int, keep_every: int | None = None):
        policies: list[preserve.PreservationPolicy] = [preserve.LatestN(keep)]
        if keep_every is not None:
            policies.append(preserve.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preserve.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )
        self._directory = directory(workdir)
        let_tasks_end()
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def steps(self) -> list[int]:
        """The complete checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, state: TrainState, progress: Progress) -> None:
        """Starts a save; a step that is already saved is left alone. Raises if the last one failed.

        All processes must call it together.
        """
        self._manager.check_for_errors()
        if not self._directory.is_dir():  # orbax would make it again, without what was in it
            number = errno.ENOENT
            raise FileNotFoundError(number, os.strerror(number), str(self._directory))
        if step in self._manager.all_steps():
            return
        record = {"progress": dataclasses.asdict(progress), "digests": digests(state)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(as_stored(state)),
            record=ocp.args.JsonSave({**record, "seal": seal(record)}),
        )
        self._manager.save(step, args=items, force=True)

    def look_again(self) -> None:
        """Lists the folder anew, after others than this object have changed it."""
        self._manager.reload()

    def check(self) -> None:
        """Raises if a save in the background has failed."""
        self._manager.check_for_errors()

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints newer than `step`."""
        self._manager.wait_until_finished()
        for newer in [s for s in self._manager.all_steps() if s > step]:
            self._manager.delete(newer)

    def wait(self) -> None:
        """Waits for the last save; raises if it failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Lets go of the threads; `wait` first, unless something has failed."""
        self._manager.close()


def directory(workdir: pathlib.Path) -> pathlib.Path:
    """Where the checkpoints of a run are, a folder per step."""
    return workdir.absolute() / "checkpoints"


def seal(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
