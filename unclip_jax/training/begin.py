"""Where a run begins. The first of these that applies:

1. resume     the workdir has checkpoints: the newest whole one, with its data position
2. restore    config.init.restore: the whole state of another run, and its data position if it
              read the same data with the same seed
3. init-from  config.init.path: parameters of a workdir or a bundle, all or some sub-trees; the
              optimiser and the averages begin anew from them
4. scratch    parameters drawn from the seed
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig, load_config
from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.parallel import replicated
from unclip_jax.stages.stage import Stage
from unclip_jax.training.checkpoint import Checkpointer, Progress, directory
from unclip_jax.training.optimizer import Optimizer
from unclip_jax.training.restore import complete_steps, newest_whole
from unclip_jax.training.state import TrainState, init_state


@dataclasses.dataclass(frozen=True)
class Initial:
    """Parameters to begin a new run with, and where they are from, in words."""

    source: str
    params: Any


@dataclasses.dataclass(frozen=True)
class Beginning:
    """A state with the progress that belongs to it, and in words where both are from."""

    state: TrainState
    progress: Progress
    source: str


FRESH = Progress(None, 0.0)


def begin(
    config: RunConfig,
    workdir: pathlib.Path,
    checkpointer: Checkpointer,
    target: TrainState,
    fingerprint: str,
    fresh: "Fresh",
) -> Beginning:
    """The beginning by the four rules.

    Args:
      target: the state's shapes with shardings.
      fingerprint: of the data set.
      fresh: how a new state is made.
    """
    found = newest_whole(workdir, target, checkpointer.steps())
    if found is not None:
        step, state, progress = found
        checkpointer.look_again()
        return Beginning(state, progress, f"resumed from step {step} of {workdir}")
    if config.init.restore is not None:
        return _restored(config, pathlib.Path(config.init.restore), target, fingerprint)
    if fresh.initial is not None:
        return Beginning(fresh.state(), FRESH, f"parameters from {fresh.initial.source}")
    return Beginning(fresh.state(), FRESH, f"from scratch, seed {config.seed}")


def _restored(
    config: RunConfig, other: pathlib.Path, target: TrainState, fingerprint: str
) -> Beginning:
    if not directory(other).is_dir():
        raise UserError(f"config.init.restore={other}: holds no checkpoints/")
    check_averages(config, other)
    found = newest_whole(other, target, complete_steps(directory(other)), set_aside=False)
    if found is None:
        raise UserError(f"config.init.restore={other}: holds no complete checkpoint")
    step, state, progress = found
    same = progress.position is not None
    if progress.position is not None:
        position = data.DataPosition.from_json(progress.position)
        same = (position.fingerprint, position.seed) == (fingerprint, config.seed)
    progress = dataclasses.replace(
        FRESH, position=progress.position if same else None, seconds=progress.seconds
    )
    where = "goes on in its data" if same else "begins its own data"
    return Beginning(state, progress, f"restored step {step} of {other}, {where}")


def check_averages(config: RunConfig, other: pathlib.Path) -> None:
    """Raises UserError if the run in `other` keeps other averages than the config asks for."""
    if not (other / "config.json").is_file():
        return
    theirs = load_config(str(other / "config.json")).ema
    for name in ("others", "power"):
        wanted, held = getattr(config.ema, name), getattr(theirs, name)
        if set(wanted) != set(held):
            raise UserError(
                f"config.init.restore={other}: was run with config.ema.{name}={held}, but {wanted} "
                "is asked for: its whole state is continued, averages too"
            )


@dataclasses.dataclass(frozen=True)
class Fresh:
    """How a new state is made: drawn from the seed, with the initial parameters put in."""

    stage: Stage
    tx: Optimizer
    seed: int
    layout: TrainState
    initial: Initial | None
    only: tuple[str, ...] = ()
    averages: tuple[str, ...] = ()

    def state(self) -> TrainState:
        """A state born sharded: no device ever holds more than its part."""
        given = {} if self.initial is None else self._given(self.initial)

        def init(given: dict[str, Any]) -> TrainState:
            key = jax.random.fold_in(jax.random.key(self.seed), 0)
            return init_state(self.stage, self.tx, key, given, self.averages)

        return jax.jit(init, out_shardings=self.layout)(given)

    def _given(self, initial: Initial) -> dict[str, Any]:
        flat = trees.flatten(jax.eval_shape(self.stage.init, jax.random.key(0)))
        chosen = choose(initial, flat, self.only)
        layouts = trees.flatten(self.layout.params)
        return {path: _place(value, layouts[path]) for path, value in chosen.items()}


def choose(initial: Initial, wanted: dict[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """{path: array} of the initial parameters that are to be used; see `config.Init`.

    Args:
      wanted: {path: shape} of the model's parameters.
      only: beginnings of paths; () for all.

    Raises:
      UserError: one of them is missing, has another shape, or is not the model's.
    """
    offered = trees.flatten(initial.params)
    asked = {path for path in wanted if not only or path.startswith(only)}
    for prefix in only:
        if not any(path.startswith(prefix) for path in wanted):
            tops = sorted({path.split("/")[0] + "/" for path in wanted})
            raise UserError(
                f"config.init.only: no parameter begins with {prefix!r}; they begin with {tops}"
            )
    hint = "name the sub-trees that fit in config.init.only"
    for path in sorted(asked):
        if path not in offered:
            raise UserError(f"{initial.source} has no parameter {path}: {hint}")
        if tuple(offered[path].shape) != tuple(wanted[path].shape):
            raise UserError(
                f"{initial.source} has {path} of shape {tuple(offered[path].shape)}, the model "
                f"{tuple(wanted[path].shape)}: {hint}"
            )
    left = sorted(set(offered) - set(wanted))
    if left and not only:
        raise UserError(f"{initial.source} has {left[0]}, which the model has not: {hint}")
    return {path: offered[path] for path in sorted(asked)}


def _place(value: Any, layout: jax.sharding.Sharding) -> jax.Array:
    """An array of every process's equal copy, laid out over the processes."""
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, layout, lambda index: host[index])


def place_replicated(tree: Any, mesh: Mesh) -> Any:
    """A tree that every process holds equally, as global arrays with a copy on every device."""
    return jax.tree.map(lambda value: _place(value, replicated(mesh)), tree)
