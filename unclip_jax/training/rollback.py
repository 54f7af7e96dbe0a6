"""Going back when too many updates were left out: a checkpoint before them, the data behind them.

The choice follows from the checkpoints and the record of left-out updates alone, so a run that is
killed on the way repeats it. Checkpoints after the chosen one are deleted, or a restart would
resume from them.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from unclip_jax.config.schema import Faults
from unclip_jax.parallel.processes import say
from unclip_jax.training.begin import FRESH, Beginning, Fresh
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.guard import Skip, stop_diverged
from unclip_jax.training.restore import newest_whole
from unclip_jax.training.state import TrainState


def roll_back(
    limits: Faults,
    workdir: pathlib.Path,
    checkpointer: Checkpointer,
    target: TrainState,
    progress: Progress,
    skipped: Sequence[Skip],
    fresh: Fresh,
) -> Beginning:
    """The newest checkpoint before the first left-out step, or the beginning of the run.

    Raises:
      Diverged: `limits.max_rollbacks` are used up.
    """
    if progress.rollbacks >= limits.max_rollbacks:
        raise stop_diverged(workdir, skipped, progress.rollbacks)
    first, last = skipped[0], skipped[-1]
    checkpointer.forget_after(first[0] - 1)
    found = newest_whole(workdir, target, checkpointer.steps())
    checkpointer.look_again()
    step, state, old = found if found is not None else (0, fresh.state(), FRESH)
    say(
        f"warning: {len(skipped)} updates in steps {first[0]} to {last[0]} were not finite: back "
        f"to step {step}, and on with the data behind them"
    )
    beyond = dataclasses.replace(
        old, position=last[2], skipped=(), rollbacks=progress.rollbacks + 1, unevaluated=False
    )
    return Beginning(state, beyond, f"rolled back to step {step}")
