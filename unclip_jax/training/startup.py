"""What a start costs: seconds to the first step, and how many of them went into compiling."""

import time
from collections.abc import Callable
from typing import Self

import jax

_SECONDS = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"


class Startup:
    """A context from a run's start; `figures` is asked once the first step is done.

    JAX reports each compilation to listeners, which are this object's for as long as it is entered.
    Programs that are found in the persistent cache take little time and are counted.

    Args:
      tell: called once with the figures, by their plain names.
    """

    def __init__(self, tell: Callable[[dict[str, float]], None] = lambda figures: None) -> None:
        self._tell = tell
        self._began = time.monotonic()
        self._compiling = 0.0
        self._hits = 0
        self._told = False

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._note_seconds)
        jax.monitoring.register_event_listener(self._note_hit)
        return self

    def __exit__(self, *error: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._note_seconds)
        jax.monitoring.unregister_event_listener(self._note_hit)

    def figures(self) -> dict[str, float]:
        """Seconds since the start and in compilation, and programs taken from the cache.

        Only the first call has an answer: a run that is rolled back does not start again.
        """
        if self._told:
            return {}
        self._told = True
        figures = {
            "seconds_to_first_step": time.monotonic() - self._began,
            "compile_seconds": self._compiling,
            "cached_programs": float(self._hits),
        }
        self._tell(figures)
        return {f"startup/{name}": value for name, value in figures.items()}

    def _note_seconds(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _SECONDS:
            self._compiling += duration_secs

    def _note_hit(self, event: str, **_: str | int) -> None:
        self._hits += event == _HIT
