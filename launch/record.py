"""What the launcher keeps of a run: a folder from which a killed launcher goes on.

HOME/NAME/spec.json   what runs, written before anything starts
          state.json  where the run is; replaced whole at every change
          code.tar.gz the pushed code
          stop        there if someone asks the launcher to stop the run; holds the grace in seconds
          lock        held by the launcher that looks after the run
          logs/       one file for each process of each attempt, byte for byte
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
from typing import Any

from unclip_jax.config.typed import build, to_plain
from unclip_jax.errors import UserError, did_you_mean

from . import spec as spec_module
from .restart import PastAttempt
from .spec import Host, RunSpec

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def default_home() -> pathlib.Path:
    """Where runs are recorded: $UNCLIP_LAUNCH_HOME, else ~/.unclip/launch."""
    chosen = os.environ.get("UNCLIP_LAUNCH_HOME")
    return pathlib.Path(chosen) if chosen else pathlib.Path.home() / ".unclip" / "launch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """Where a run is.

    Attributes:
      phase: "new", "starting" (perhaps not all of an attempt has begun), "running", "waiting" (for
        the next attempt) or "over".
      attempt: the present one, or the next one while waiting; counted from 1.
      hosts: those of the attempt, as the backend gave them.
      job: the scheduler's name for the run, on backends that have a scheduler.
      wait_until: Unix time, while waiting.
      past: attempts that are over.
      result: ExitClass.name, when over.
      text: why it is over or waits, in words.
    """

    phase: str = "new"
    attempt: int = 1
    hosts: tuple[Host, ...] = ()
    job: str = ""
    wait_until: float = 0.0
    past: tuple[PastAttempt, ...] = ()
    result: str = ""
    text: str = ""


class Record:
    """The folder of one run."""

    def __init__(self, home: pathlib.Path, name: str):
        if not NAME.fullmatch(name):
            raise UserError(f"--name {name!r}: use lower-case letters, digits, '-', '_' and '.'")
        self.home, self.name, self.folder = home, name, home / name
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        """Whether a run of this name was recorded."""
        return (self.folder / "spec.json").exists()

    @property
    def spec(self) -> RunSpec:
        """What runs."""
        return spec_module.from_json((self.folder / "spec.json").read_text())

    @property
    def state(self) -> State:
        """Where it is."""
        path = self.folder / "state.json"
        if not path.exists():
            return State()
        return build(State, json.loads(path.read_text()), "state")

    def create(self, spec: RunSpec, packed: bytes = b"") -> None:
        """Writes the spec, and the code to push."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"can't write to {self.folder}: {error.strerror}") from None
        if packed:
            _write(self.folder / "code.tar.gz", packed)
        _write(self.folder / "spec.json", spec_module.to_json(spec).encode())

    def change(self, **changes: Any) -> State:
        """Replaces the state by one with these changes; returns it."""
        state = dataclasses.replace(self.state, **changes)
        _write(self.folder / "state.json", json.dumps(to_plain(state), indent=1).encode())
        return state

    def code(self) -> bytes:
        """The packed code, b"" if none is pushed."""
        path = self.folder / "code.tar.gz"
        return path.read_bytes() if path.exists() else b""

    def log(self, attempt: int, process: int) -> pathlib.Path:
        """The log of one process of one attempt."""
        return self.folder / "logs" / f"attempt-{attempt:03d}.process-{process:03d}.log"

    def ask_to_stop(self, grace: float) -> None:
        """Leaves word for the launcher that looks after the run."""
        _write(self.folder / "stop", f"{grace:g}".encode())

    def stop_request(self) -> float | None:
        """The grace in seconds, if someone has asked to stop the run."""
        try:
            return float((self.folder / "stop").read_text())
        except (OSError, ValueError):
            return None

    def clear_stop(self) -> None:
        """Forgets a request to stop."""
        (self.folder / "stop").unlink(missing_ok=True)

    def acquire(self) -> bool:
        """Becomes the run's launcher; False if another process is. Held until this one ends."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def release(self) -> None:
        """Lets another process look after the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder)


def find(home: pathlib.Path, name: str) -> Record:
    """The record of a run that exists."""
    record = Record(home, name)
    if not record.exists:
        raise UserError(f"no run {name!r} in {home}{did_you_mean(name, names(home))}")
    return record


def names(home: pathlib.Path) -> list[str]:
    """The names of all recorded runs."""
    return sorted(path.parent.name for path in home.glob("*/spec.json"))


def _write(path: pathlib.Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
