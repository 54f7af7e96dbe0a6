"""The probability-flow ODE in two coordinates, for the solvers that follow its slope.

    angle:   alpha = cos phi, sigma = sin phi,      dx / dphi = v = alpha epsilon - sigma x0
    sigma:   y = x / alpha, s = sigma / alpha,      dy / ds   = epsilon

(Salimans & Ho 2022, appendix D; Karras et al. 2022, eq. 3.) They are the same curve. phi stays in
[0, pi/2], while s is 20000 at the end of the cosine schedule: a second-order step in s from there
to s = 10 multiplies a slope error of 0.002 by 20000. So angle is the default; sigma is the form in
which Heun and PLMS were published, fit for schedules that end at s = 15 to 150 (scaled linear,
linear).

The last row moves to alpha_bar = 1, from one slope alone: in both coordinates that is the predicted
x_0, and so it is written.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.samplers.base import Row, timestep
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError, did_you_mean

COORDINATES = ("angle", "sigma")


def ode_columns(
    steps: NoiseSchedule, coordinate: str, *, slope_of: np.ndarray, move_of: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of the rows of a table, float64 [R]; steps count in sampling order, 0 the noisiest.

    Args:
      slope_of: the step at whose start each row takes the slope,
        slope = slope_x0 x0 + slope_epsilon epsilon.
      move_of: the step along which it moves, x' = x_factor x + move slope.
    """
    if coordinate not in COORDINATES:
        hint = did_you_mean(coordinate, COORDINATES)
        raise UserError(f"unknown ODE coordinate {coordinate!r}{hint}")
    alpha, sigma = np.sqrt(steps.alpha_bars[::-1]), np.sqrt(1 - steps.alpha_bars[::-1])
    if coordinate == "angle":
        x_factor, move = np.ones_like(alpha), np.diff(angles(steps))
        slope_x0, slope_epsilon = -sigma, alpha
    elif alpha[0] == 0:
        raise UserError("coordinate 'sigma' is infinite at zero terminal SNR: use 'angle'")
    else:
        x_factor = np.sqrt(steps.alpha_bars_prev[::-1]) / alpha
        move = np.sqrt(1 - steps.alpha_bars_prev[::-1]) - sigma * x_factor
        slope_x0, slope_epsilon = np.zeros_like(alpha), np.ones_like(alpha)
    columns = {
        "slope_x0": slope_x0[slope_of],
        "slope_epsilon": slope_epsilon[slope_of],
        "x_factor": x_factor[move_of],
        "move": move[move_of],
    }
    for name, value in (("slope_x0", 1), ("slope_epsilon", 0), ("x_factor", 0), ("move", 1)):
        columns[name][-1] = value
    return columns


def angles(steps: NoiseSchedule) -> np.ndarray:
    """Float64 [N + 1]: phi of each step in sampling order, and the 0 where the last one arrives."""
    phi = np.arctan2(np.sqrt(1 - steps.alpha_bars), np.sqrt(steps.alpha_bars))
    return np.concatenate([phi[::-1], [0.0]])


def slope_at(denoiser: Denoiser, x: Array, row: Row) -> Array:
    """The ODE's slope at x and the row's timestep."""
    denoised = denoiser(x, timestep(row, x))
    return row["slope_x0"] * denoised.x0 + row["slope_epsilon"] * denoised.epsilon


def start_of_move(row: Row, x: Array, remembered: Array) -> Array:
    """Where the row's move starts: here, or where the move that it corrects did."""
    return jnp.where(row["corrects"] > 0, remembered, x)
