"""What is no defect of ours: its exceptions, the exit codes of a run, and a hint at what is meant.

A `UserError` says in one line what is wrong, where, and what to do. Commands print it without a
traceback and exit with its code (docs/surviving.md has the table); anything else that is raised is
a defect of ours, with exit code 1.
"""

import difflib
from collections.abc import Iterable

EXIT_STOPPED = 75  # EX_TEMPFAIL: a signal stopped it, its state is saved: start it again
EXIT_STALLED = 76  # the watchdog ended it: start it again


class UserError(Exception):
    """Bad input. The message is one clear line: what, where, what to do."""

    exit_code = 2


class SharedError(UserError):
    """What all processes of a run raise at the same step, so that they can part in order."""


class Diverged(SharedError):
    """Training made no finite update for too long, after all the rollbacks that were allowed."""

    exit_code = 65  # EX_DATAERR


class MissingProcess(UserError):
    """A process of the run did not come, or can't be reached."""

    exit_code = 69  # EX_UNAVAILABLE


class StorageError(UserError):
    """The workdir can't be written: full, read-only or gone."""

    exit_code = 74  # EX_IOERR


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns ' (did you mean X?)' for the nearest candidate, or the sorted list of all of them."""
    candidates = sorted(candidates)
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if nearest:
        return f" (did you mean {nearest[0]!r}?)"
    return f" (valid: {', '.join(candidates)})" if candidates else ""
