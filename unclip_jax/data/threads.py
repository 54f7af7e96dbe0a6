"""Many small reads at once: a bucket answers each after tens of milliseconds, so one by one a set
of 40,000 shards would take the better part of an hour to open."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from unclip_jax.progress import progress

_AT_ONCE = 64
_WORTH_SHOWING = 64
T, R = TypeVar("T"), TypeVar("R")


def each(work: Callable[[T], R], items: Sequence[T], what: str, at_once: int = _AT_ONCE) -> list[R]:
    """Returns work(item) of all items, in order, with progress called `what` if they are many."""
    with ThreadPoolExecutor(max(1, min(at_once, len(items)))) as pool:
        results = pool.map(work, items)
        if len(items) < _WORTH_SHOWING:
            return list(results)
        found = []
        with progress(what, len(items), "shards") as advance:
            for result in results:
                found.append(result)
                advance(1)
        return found
