"""Going back when too many updates were left out: a checkpoint before them, the data behind them.

The choice follows from the checkpoints and the record of left-out updates alone, so a run that is
killed on the way repeats it. Checkpoints after the chosen one are deleted, or a restart would
resume from them.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from unclip_jax.config.schema import Faults
from unclip_jax.parallel.processes import say
from unclip_jax.training.begin import Beginning
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.guard import Skip, stop_diverged


def roll_back(
    limits: Faults,
    workdir: pathlib.Path,
    checkpointer: Checkpointer,
    progress: Progress,
    skipped: Sequence[Skip],
    begin_again: Callable[[], Beginning],
) -> Beginning:
    """The newest checkpoint before the first left-out step, or what the run began with.

    Args:
      progress: of the attempt that failed.
      begin_again: the four rules of `begin.py`, applied to the checkpoints that are left.

    Raises:
      Diverged: `limits.max_rollbacks` are used up.
    """
    if progress.rollbacks >= limits.max_rollbacks:
        raise stop_diverged(workdir, skipped, progress.rollbacks)
    first, last = skipped[0], skipped[-1]
    checkpointer.forget_after(first[0] - 1)
    begun = begin_again()
    say(
        f"warning: {len(skipped)} updates in steps {first[0]} to {last[0]} were not finite: back "
        f"to step {int(begun.state.step)}, and on with the data behind them"
    )
    beyond = dataclasses.replace(
        begun.progress,
        position=last[2],
        skipped=(),
        rollbacks=progress.rollbacks + 1,
        unevaluated=False,
    )
    return dataclasses.replace(begun, progress=beyond, source=f"rolled back, {begun.source}")
