"""PLMS: Adams-Bashforth on the probability-flow ODE, one network call a step.

    slope' = (55 s_n - 59 s_{n-1} + 37 s_{n-2} - 9 s_{n-3}) / 24          evenly spaced

after a start of one Heun step (the only one with two calls) and the formulas of order 2 and 3 (Liu
et al. 2022, PNDM, eqs. 9 and 12, as used by latent diffusion; coordinates in `ode`). As published,
in coordinate "sigma", the factors are those of even spacing whatever the timesteps. In "angle" they
are those of the angles visited, so that any spacing keeps the order. The last step uses its own
slope alone and returns the predicted x_0. N steps make N + 1 calls.
"""

import jax.numpy as jnp
import numpy as np

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, visited
from unclip_jax.diffusion.samplers.ode import angles, ode_columns, slope_at, start_of_move
from unclip_jax.diffusion.schedule import NoiseSchedule


def plms(schedule: NoiseSchedule, num_steps: Spacing, *, coordinate: str = "angle") -> Sampler:
    """PLMS; coordinate "angle" or "sigma" (as published), see `ode`."""
    steps = visited(schedule, num_steps)
    last = steps.num_steps - 1
    grid = angles(steps) if coordinate == "angle" else np.arange(last + 2.0)
    weights = [_weights(grid, n, order=1 if n == last else 4) for n in range(last + 1)]
    # Step 0 takes two rows: along its own slope, then along the mean of that and of step 1's.
    slope_of = move_of = np.arange(last + 1)
    if last > 0:
        slope_of, move_of = np.insert(slope_of, 1, 1), np.insert(move_of, 1, 0)
        weights.insert(1, np.array([1 / 2, 1 / 2, 0, 0]))
    table = step_table(
        steps.timesteps[::-1][slope_of],
        corrects=slope_of > move_of,
        weights=np.stack(weights),
        **ode_columns(steps, coordinate, slope_of=slope_of, move_of=move_of),
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


def _weights(grid: np.ndarray, n: int, order: int) -> np.ndarray:
    """Weights [4] of the slopes at grid n, n-1, .. for the mean slope over grid n to n + 1.

    The mean of the polynomial through them: exact for u^m, of mean 1 / (m + 1) over u in [0, 1].
    """
    order = min(order, n + 1)
    u = (grid[n - np.arange(order)] - grid[n]) / (grid[n + 1] - grid[n])
    power = np.arange(order)
    return np.pad(np.linalg.solve(u ** power[:, None], 1 / (power + 1)), (0, 4 - order))
