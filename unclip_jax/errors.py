"""The one exception for a user's mistake, and the hint that usually mends it.

A `UserError` says in one line what is wrong, where, and what to do. Commands print it without a
traceback and exit with code 2; anything else that is raised is a defect of ours.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one clear line: what, where, what to do."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns ' (did you mean X?)' for the nearest candidate, or the sorted list of all of them."""
    candidates = sorted(candidates)
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if nearest:
        return f" (did you mean {nearest[0]!r}?)"
    return f" (valid: {', '.join(candidates)})" if candidates else ""
