"""PLMS: Adams-Bashforth on the probability-flow ODE, one network call a step.

    slope' = (55 s_n - 59 s_{n-1} + 37 s_{n-2} - 9 s_{n-3}) / 24

after a start of one Heun step (the only one with two calls) and the formulas of order 2 and 3 (Liu
et al. 2022, PNDM, eqs. 9 and 12, as used by latent diffusion; coordinates in `ode`). The factors
are those of even spacing, so give it a plain count of steps. The last step, much shorter, uses its
own slope alone and returns the predicted x_0. N steps make N + 1 calls.
"""

import jax.numpy as jnp
import numpy as np

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, visited
from unclip_jax.diffusion.samplers.ode import (
    Coordinate,
    slope_and_move,
    slope_at,
    start_of_move,
)
from unclip_jax.diffusion.schedule import NoiseSchedule

_ADAMS_BASHFORTH = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)
_MEAN_WITH_LAST = np.array([1 / 2, 1 / 2, 0, 0])


def plms(
    schedule: NoiseSchedule, num_steps: Spacing, *, coordinate: Coordinate = "angle"
) -> Sampler:
    """PLMS; coordinate "angle" or "sigma" (as published), see `ode`."""
    steps = visited(schedule, num_steps)
    last = steps.num_steps - 1
    slope, move = slope_and_move(steps, coordinate)
    # Step n starts at timestep n. Step 0 takes two rows; the second has the slope of timestep 1.
    step = np.arange(last + 1)
    weights = _ADAMS_BASHFORTH[np.where(step == last, 0, np.minimum(step, 3))]
    corrects = np.zeros(last + 1, bool)
    slope_of = step
    if last > 0:
        step, slope_of = np.insert(step, 1, 0), np.insert(slope_of, 1, 1)
        weights = np.insert(weights, 1, _MEAN_WITH_LAST, axis=0)
        corrects = np.insert(corrects, 1, True)
    table = step_table(
        steps.timesteps[::-1][slope_of],
        corrects=corrects,
        weights=weights,
        **{name: column[slope_of] for name, column in slope.items()},
        **{name: column[step] for name, column in move.items()},
    )
    return Sampler(table, "plms", plms_step, memory_size=4)


def plms_step(denoiser: Denoiser, state: State, row: Row, noise: None) -> State:
    """One call; the memory is where the last move started and the last three slopes."""
    before, *past = state.memory
    start = start_of_move(row, state.x, before)
    slopes = [slope_at(denoiser, state.x, row), *past]
    mean = sum(row["weights"][k] * slope for k, slope in enumerate(slopes))
    x = row["x_factor"] * start + row["move"] * mean
    # A correcting slope belongs to a point that is given up: it does not enter the past.
    kept = [
        jnp.where(row["corrects"] > 0, old, new) for old, new in zip(past, slopes[:-1], strict=True)
    ]
    return State(x, (start, *kept))
