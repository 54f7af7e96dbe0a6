"""The folder of a sweep: one folder for each trial, named by the hash of its overrides.

SWEEP/sweep.json           what the sweep is
      lock                 held by its driver
      trials/ID/trial.json number and overrides, written before the trial starts
             pruned.json   there once it was decided to end the trial early
             result.json   status and value, written when it is over
             out/          the run's workdir, or what its command writes
      launch/              records of the launcher
"""

import fcntl
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unclip_jax.config.sweeps import Overrides
from unclip_jax.errors import UserError

DONE, FAILED, PRUNED, OPEN = "done", "failed", "pruned", "open"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
      number: in the order of their beginning, from 0.
      status: "open" (begun, not over), "done", "pruned" or "failed".
      value: of the objective; of a pruned trial the last one seen, of a failed one None.
      text: why it failed.
    """

    folder: pathlib.Path
    number: int
    overrides: Overrides
    status: str = OPEN
    value: float | None = None
    text: str = ""

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def out(self) -> pathlib.Path:
        """Where its run writes."""
        return self.folder / "out"

    @property
    def run_name(self) -> str:
        """What the launcher calls its run."""
        sweep = re.sub(r"[^a-z0-9._-]+", "-", self.folder.parents[1].name.lower()).strip("-._")
        return f"{(sweep or 'sweep')[:27]}-{self.id}"

    @property
    def pruned(self) -> bool:
        """Whether it was decided to end it early."""
        return (self.folder / "pruned.json").exists()

    def prune(self, step: int) -> None:
        """Records that decision."""
        write_json(self.folder / "pruned.json", {"step": step})

    def finish(self, status: str, value: float | None, text: str = "") -> None:
        """Records the result."""
        result = {"status": status, "value": value, "text": text}
        write_json(self.folder / "result.json", result)


class SweepFolder:
    """All trials of a sweep."""

    def __init__(self, path: pathlib.Path):
        self.path = path.absolute()
        self._lock: int | None = None

    def open(self, declaration: Mapping[str, Any]) -> None:
        """Takes the folder for one driver; refuses another sweep's, or one that has a driver."""
        try:
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {self.path}: can't be made: {error.strerror}") from None
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(f"--workdir {self.path}: another driver runs this sweep") from None
        path = self.path / "sweep.json"
        if path.exists():
            theirs = json.loads(path.read_text())
            for name, value in json.loads(canonical(declaration)).items():
                if theirs.get(name) != value:
                    raise UserError(
                        f"--workdir {self.path} holds a sweep with {name}={theirs.get(name)!r}, "
                        f"not {value!r}: give another --workdir"
                    )
        write_json(path, dict(declaration))

    def close(self) -> None:
        """Lets other drivers in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def trials(self) -> list[Trial]:
        """All trials that were begun, by number."""
        found = [_read(path.parent) for path in self.path.glob("trials/*/trial.json")]
        return sorted(found, key=lambda trial: trial.number)

    def begin(self, overrides: Overrides) -> Trial:
        """Records a new trial."""
        folder = self.path / "trials" / trial_id(overrides)
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(folder, len(self.trials()), overrides)
        write_json(folder / "trial.json", {"number": trial.number, "overrides": overrides})
        return trial


def trial_id(overrides: Mapping[str, Any]) -> str:
    """The name of the trial with these overrides, in whatever order they are given."""
    return hashlib.sha256(canonical(overrides).encode()).hexdigest()[:12]


def canonical(value: Any) -> str:
    """JSON with sorted keys."""
    return json.dumps(value, sort_keys=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(value, indent=1))
    draft.replace(path)


def _read(folder: pathlib.Path) -> Trial:
    begun = json.loads((folder / "trial.json").read_text())
    trial = Trial(folder, begun["number"], begun["overrides"])
    result = folder / "result.json"
    if not result.exists():
        return trial
    return Trial(folder, trial.number, trial.overrides, **json.loads(result.read_text()))
