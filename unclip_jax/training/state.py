"""The whole state of training: what a checkpoint holds and a step maps to its successor.

There is no random key (keys are derived from the seed and the step) and no data iterator (a
position is saved beside the state).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from unclip_jax.core import trees
from unclip_jax.stages.stage import Stage
from unclip_jax.training.optimizer import Optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Step counter (int32), parameters, their moving average (float32), optimiser state, what the
    stage remembers of its losses ({} for most), and further averages by name (`ema.py`)."""

    step: Int[Array, ""]
    params: Any
    ema_params: Any
    opt_state: Any
    memory: Any = dataclasses.field(default_factory=dict)
    averages: dict[str, Any] = dataclasses.field(default_factory=dict)


def init_state(
    stage: Stage,
    tx: Optimizer,
    key: Key[Array, ""],
    given: Mapping[str, Array] | None = None,
    averages: Iterable[str] = (),
) -> TrainState:
    """A fresh state; pure, so that `jax.eval_shape` gives its shapes without memory.

    Args:
      given: {path: array} of parameters to take instead of drawn ones.
      averages: names of further averages beside `ema_params`.
    """
    drawn = trees.flatten(stage.init(key))
    taken = {path: value.astype(drawn[path].dtype) for path, value in (given or {}).items()}
    params = trees.unflatten({**drawn, **taken})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=trees.copy(params),
        opt_state=tx.init(params),
        memory={} if stage.memory is None else stage.memory.init(),
        averages={name: trees.copy(params) for name in averages},
    )


def as_stored(state: TrainState) -> dict[str, Any]:
    """The fields as a checkpoint holds them: without further averages if there are none."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    if not state.averages:
        del fields["averages"]
    return fields
