"""The probability-flow ODE in two coordinates, for the solvers that follow its slope.

    angle:   alpha = cos phi, sigma = sin phi,      dx / dphi = v = alpha epsilon - sigma x0
    sigma:   y = x / alpha, s = sigma / alpha,      dy / ds   = epsilon

(Salimans & Ho 2022, appendix D; Karras et al. 2022, eq. 3.) They are the same curve. phi stays in
[0, pi/2], while s is 20000 at the end of the cosine schedule: a second-order step in s from there
to s = 10 multiplies a slope error of 0.002 by 20000. So angle is the default; sigma is the form in
which Heun and PLMS were published, fit for schedules that end at s = 15 to 150 (scaled linear,
linear). In phi the cosine schedule is evenly spaced.

A move along a constant slope is x' = x_factor x + move slope. The last one, to alpha_bar = 1, takes
the factors for which x' is the predicted x_0.
"""

from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.samplers.base import Row, timestep
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError, did_you_mean

Coordinate = Literal["angle", "sigma"]


def slope_and_move(
    steps: NoiseSchedule, coordinate: Coordinate
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Float64 [N] in sampling order.

    Returns:
      the slope at each step's start, slope = slope_x0 x0 + slope_epsilon epsilon;
      the move from there to the next step, x' = x_factor x + move slope.
    """
    if coordinate not in get_args(Coordinate):
        hint = did_you_mean(coordinate, get_args(Coordinate))
        raise UserError(f"unknown ODE coordinate {coordinate!r}{hint}")
    alpha_bars, after = steps.alpha_bars[::-1], steps.alpha_bars_prev[::-1]
    alpha, sigma = np.sqrt(alpha_bars), np.sqrt(1 - alpha_bars)
    alpha_after, sigma_after = np.sqrt(after), np.sqrt(1 - after)
    if coordinate == "sigma":
        if alpha[0] == 0:
            raise UserError("coordinate 'sigma' is infinite at zero terminal SNR: use 'angle'")
        x_factor = alpha_after / alpha
        slope = {"slope_x0": np.zeros_like(alpha), "slope_epsilon": np.ones_like(alpha)}
        return slope, {"x_factor": x_factor, "move": sigma_after - sigma * x_factor}
    turn = np.arctan2(sigma_after, alpha_after) - np.arctan2(sigma, alpha)
    last = np.arange(len(alpha)) == len(alpha) - 1
    move = {"x_factor": np.where(last, alpha, 1.0), "move": np.where(last, -sigma, turn)}
    return {"slope_x0": -sigma, "slope_epsilon": alpha}, move


def slope_at(denoiser: Denoiser, x: Array, row: Row) -> Array:
    """The ODE's slope at x and the row's timestep."""
    denoised = denoiser(x, timestep(row, x))
    return row["slope_x0"] * denoised.x0 + row["slope_epsilon"] * denoised.epsilon


def start_of_move(row: Row, x: Array, remembered: Array) -> Array:
    """Where the row's move starts: here, or where the move that it corrects did."""
    return jnp.where(row["corrects"] > 0, remembered, x)
