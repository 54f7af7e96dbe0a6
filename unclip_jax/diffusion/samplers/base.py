"""What a sampler is, and the one loop that runs any of them.

A sampler is a table and a step. The table holds everything that depends on the schedule: row i has
the timestep the network is given and the coefficients of the update, computed in float64 and cast
to float32. The step is a plain function of arrays. The loop is one `lax.scan` over the rows.

A sampler is a pytree whose leaves are its table: given to a jitted function as an argument, another
schedule with the same number of steps does not compile again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unclip_jax.core.rng import fold_in_name, normal
from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing, respace, spaced_timesteps
from unclip_jax.diffusion.schedule import NoiseSchedule

Row = dict[str, Any]
"""One row of a step table: scalars "index" (of the step's noise), "t", and coefficients."""


class State(NamedTuple):
    """x, and what a step remembers for the next ones."""

    x: Array
    memory: tuple[Array, ...] = ()


Step = Callable[[Denoiser, State, Row, Any], State]
"""(denoiser, state, row, noise like x, or None if not stochastic) -> state."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["table"],
    meta_fields=["name", "step", "memory_size", "stochastic"],
)
@dataclass(frozen=True, eq=False)
class Sampler:
    """A step and its table of N rows, in the order they are taken.

    Attributes:
      table: {"index", "t": int32 [N], coefficients: float32 [N] or [N, k]}.
      step: see `Step`.
      memory_size: how many arrays like x the state remembers; they start as zeros.
      stochastic: whether the step is given noise.
    """

    table: Any
    name: str
    step: Step
    memory_size: int = 0
    stochastic: bool = False

    def __len__(self) -> int:
        """The number of rows, which is the number of times the network is called."""
        return len(self.table["t"])

    def __getitem__(self, rows: slice) -> "Sampler":
        """The sampler of some of the rows: stop early, or start from a partly noised image.

        Each row keeps its own noise. Samplers with a memory start it anew.
        """
        return replace(self, table=jax.tree.map(lambda column: column[rows], self.table))


def sample(
    sampler: Sampler, denoiser: Denoiser, x_T: Float[Array, "b *data"], keys: Key[Array, " b"]
) -> Float[Array, "b *data"]:
    """Run a sampler from x_T, float32, to x_0.

    Args:
      x_T: see `initial_noise`; for an inversion, the clean data.
      keys: one per example. The noise of step i for example b is a function of (keys[b], i), so a
        sample does not depend on the batch it is drawn in.
    """
    keys = fold_in_name(keys, "sampler")

    def body(state: State, row: Row) -> tuple[State, None]:
        noise = None
        if sampler.stochastic:
            noise = step_noise(keys, row["index"], x_T.shape[1:])
        return sampler.step(denoiser, state, row, noise), None

    start = State(x_T, (jnp.zeros_like(x_T),) * sampler.memory_size)
    return jax.lax.scan(body, start, sampler.table)[0].x


def initial_noise(keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b *data"]:
    """x_T [B, *shape], standard normal, of each example's own key."""
    return normal(fold_in_name(keys, "x_T"), shape)


def step_noise(
    keys: Key[Array, " b"], index: Int[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "b *data"]:
    """Standard normal noise [B, *shape] of one step."""
    return normal(jax.vmap(jax.random.fold_in, (0, None))(keys, index), shape)


def visited(schedule: NoiseSchedule, num_steps: Spacing) -> NoiseSchedule:
    """The sub-schedule a sampler walks; num_steps as in `spaced_timesteps`."""
    return respace(schedule, spaced_timesteps(schedule.num_steps, num_steps))


def step_table(timesteps: np.ndarray, **coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """A table from rows in the order they are taken."""
    columns = {name: np.asarray(c, np.float32) for name, c in coefficients.items()}
    index = np.arange(len(timesteps), dtype=np.int32)
    return {"index": index, "t": np.asarray(timesteps, np.int32), **columns}


def timestep(row: Row, x: Array) -> Int[Array, " b"]:
    """The row's t for each example."""
    return jnp.full(x.shape[:1], row["t"], jnp.int32)
