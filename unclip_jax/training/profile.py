"""A profile of a few steps: `config.train.profile` names the first and how many.

The trace lies under `workdir/profile` and opens in TensorBoard's profiler or in Perfetto. The steps
of the window are waited for before it closes, so that the trace holds all of their device time.
"""

import pathlib
from typing import Any

import jax

from unclip_jax.config.schema import Profile


class ProfileWindow:
    """Starts and stops the trace; `close` ends one that the run's end cuts short."""

    def __init__(self, config: Profile, workdir: pathlib.Path):
        first = config.first_step
        self._steps = range(0) if first is None else range(first, first + config.steps)
        self._folder = workdir / "profile"
        self._open = False

    def before_step(self, step: int) -> None:
        """To be called before step number `step` (from 1) is dispatched."""
        if step in self._steps and not self._open:
            jax.profiler.start_trace(str(self._folder))
            self._open = True

    def after_step(self, step: int, results: Any) -> None:
        """To be called after it was; `results` are waited for if it is the window's last."""
        if self._open and step == self._steps[-1]:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes what was traced, if anything is being traced."""
        if self._open:
            jax.profiler.stop_trace()
            self._open = False
