"""How a process ended, and what that says about the run.

The trainer's own codes are in docs/surviving.md. When one rank of several dies, JAX aborts the
others (SIGABRT, 134), or they miss it (69): those are victims, and the cause is the first process
that is none.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from unclip_jax.errors import (
    EXIT_STALLED,
    EXIT_STOPPED,
    Diverged,
    MissingProcess,
    StorageError,
    UserError,
)

STOPPED_BY_US = "stopped"  # the reason that the agent gives for an end that was asked for


class ExitClass(enum.Enum):
    """The value is the launcher's own exit code for a run that ends so."""

    DONE = 0
    CRASHED = 1
    USER_ERROR = 2
    DIVERGED = 65
    LOST = 69
    STORAGE = 74
    PREEMPTED = 75
    STALLED = 76
    STOPPED = 130
    VICTIM = 134
    KILLED = 137


# What a code of the trainer means; other codes are crashes.
CLASS_OF_CODE = {
    0: ExitClass.DONE,
    UserError.exit_code: ExitClass.USER_ERROR,
    Diverged.exit_code: ExitClass.DIVERGED,
    MissingProcess.exit_code: ExitClass.VICTIM,  # another process did not come, or has gone
    StorageError.exit_code: ExitClass.STORAGE,
    EXIT_STOPPED: ExitClass.PREEMPTED,
    EXIT_STALLED: ExitClass.STALLED,
    134: ExitClass.VICTIM,  # 128 + SIGABRT
    137: ExitClass.KILLED,  # 128 + SIGKILL: out of memory, or the host's doing
    143: ExitClass.KILLED,  # 128 + SIGTERM, before the trainer could handle it
    255: ExitClass.LOST,  # ssh's own failure
}


# The same again would end the same.
FINAL = {ExitClass.USER_ERROR, ExitClass.DIVERGED, ExitClass.STORAGE}


@dataclass(frozen=True)
class Exit:
    """The end of one process.

    Attributes:
      process: its index.
      code: its exit code, 128 + n for signal n; None if it is not known (the host is gone).
      reason: more in words, "" if the code says all.
    """

    process: int
    code: int | None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """The end of one attempt: its class, the process that caused it, and why in words."""

    kind: ExitClass
    process: int | None
    text: str


def classify(end: Exit) -> ExitClass:
    """The class of one process's end."""
    if end.code is None:
        return ExitClass.LOST
    if end.reason == STOPPED_BY_US and end.code != 0:
        return ExitClass.VICTIM
    return CLASS_OF_CODE.get(end.code, ExitClass.CRASHED)


def judge(ends: Sequence[Exit]) -> Verdict:
    """The verdict over all processes; `ends` are in the order in which they ended."""
    failed = [end for end in ends if classify(end) is not ExitClass.DONE]
    if not failed:
        return Verdict(ExitClass.DONE, None, "every process ended well")
    mistakes = [end for end in failed if classify(end) in FINAL]
    causes = [end for end in failed if classify(end) is not ExitClass.VICTIM]
    cause = (mistakes or causes or failed)[0]
    return Verdict(classify(cause), cause.process, _text(cause))


def _text(end: Exit) -> str:
    how = "can't be reached" if end.code is None else f"ended with code {end.code}"
    return f"process {end.process} {how}" + (f": {end.reason}" if end.reason else "")
