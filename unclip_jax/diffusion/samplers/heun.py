"""Heun's method on the probability-flow ODE: second order, two network calls a step.

    predict   x~ = x + h slope(x, t)
    correct   x' = x + h (slope(x, t) + slope(x~, t')) / 2

(Karras et al. 2022, algorithm 1; coordinates in `ode`.) Each call is a row of the table. The last
step, to alpha_bar = 1, is only predicted: N steps make 2 N - 1 calls.
"""

import numpy as np

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, visited
from unclip_jax.diffusion.samplers.ode import ode_columns, slope_at, start_of_move
from unclip_jax.diffusion.schedule import NoiseSchedule


def heun(schedule: NoiseSchedule, num_steps: Spacing, *, coordinate: str = "angle") -> Sampler:
    """Heun's method; coordinate "angle" or "sigma" (as published), see `ode`."""
    steps = visited(schedule, num_steps)
    # Rows: predict step 0, correct it with the slope of step 1, predict step 1, ..
    row = np.arange(2 * steps.num_steps - 1)
    slope_of, corrects = (row + 1) // 2, row % 2 == 1
    table = step_table(
        steps.timesteps[::-1][slope_of],
        corrects=corrects,
        now=np.where(corrects, 0.5, 1.0),
        before=np.where(corrects, 0.5, 0.0),
        **ode_columns(steps, coordinate, slope_of=slope_of, move_of=row // 2),
    )
    return Sampler(table, "heun", heun_step, memory_size=2)


def heun_step(denoiser: Denoiser, state: State, row: Row, noise: None) -> State:
    """Predict or correct; the memory is where the step started and the slope there."""
    before, slope_before = state.memory
    start = start_of_move(row, state.x, before)
    slope = slope_at(denoiser, state.x, row)
    mean = row["now"] * slope + row["before"] * slope_before
    return State(row["x_factor"] * start + row["move"] * mean, (start, slope))
