"""DDIM (Song et al. 2021), and its inversion from an image to the noise that gives it.

    x_{t-1} = sqrt(alpha_bar_{t-1}) x0 + sqrt(1 - alpha_bar_{t-1} - std^2) epsilon + std noise
    std^2   = eta^2 (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_{t-1})

(eqs. 12, 16.) eta = 0 is deterministic, eta = 1 is DDPM. The last step lands on alpha_bar = 1: it
returns the predicted x_0.

Inversion solves the eta = 0 step for x_t. Its epsilon is needed at x_t, the unknown; at first
x_{t-1} stands in for it (Dhariwal & Nichol 2021, appendix F). Each further iteration puts the last
answer in its place; sampling undoes a fixed point of that exactly. They are iterated in the angle
phi (alpha = cos phi, sigma = sin phi), where the step is a rotation by delta,

    x_t = (x_{t-1} + sin(delta) v(x_t)) / cos(delta),

because in epsilon they do not converge near pure noise, where epsilon is x_t itself.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, timestep, visited
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


def ddim(schedule: NoiseSchedule, num_steps: Spacing, *, eta: float = 0.0) -> Sampler:
    """DDIM sampling; eta in [0, 1] is the share of DDPM's noise."""
    if not 0 <= eta <= 1:
        raise UserError(f"DDIM's eta must be between 0 and 1, got {eta}")
    steps = visited(schedule, num_steps)
    alpha_bars, prev = steps.alpha_bars[::-1], steps.alpha_bars_prev[::-1]
    variance = eta**2 * (1 - prev) / (1 - alpha_bars) * (1 - alpha_bars / prev)
    table = step_table(
        steps.timesteps[::-1],
        x0=np.sqrt(prev),
        epsilon=np.sqrt(1 - prev - variance),
        std=np.sqrt(variance),
    )
    stochastic = eta > 0
    return Sampler(table, "ddim", noisy_step if stochastic else ddim_step, stochastic=stochastic)


def ddim_step(denoiser: Denoiser, state: State, row: Row, noise: None) -> State:
    """A deterministic step."""
    denoised = denoiser(state.x, timestep(row, state.x))
    return State(row["x0"] * denoised.x0 + row["epsilon"] * denoised.epsilon)


def noisy_step(denoiser: Denoiser, state: State, row: Row, noise: Array) -> State:
    """A step with noise of standard deviation std."""
    return State(ddim_step(denoiser, state, row, None).x + row["std"] * noise)


def ddim_inversion(schedule: NoiseSchedule, num_steps: Spacing, *, iterations: int = 1) -> Sampler:
    """From x_0 to the x_T that `ddim` (eta 0, same schedule and steps) would turn into it.

    Args:
      iterations: network calls for each step; 1 is the usual approximation.
    """
    if iterations < 1:
        raise UserError(f"DDIM inversion needs at least one iteration, got {iterations}")
    steps = visited(schedule, num_steps)
    alpha_bars, prev = steps.alpha_bars, steps.alpha_bars_prev
    if alpha_bars[-1] == 0:
        raise UserError("DDIM cannot invert to zero terminal SNR: nothing of x_0 is left there")
    alpha, sigma = np.sqrt(alpha_bars), np.sqrt(1 - alpha_bars)
    scale = alpha / np.sqrt(prev)
    turn = np.arctan2(sigma, alpha) - np.arctan2(np.sqrt(1 - prev), np.sqrt(prev))
    first = {"x": scale, "x0": 0 * scale, "epsilon": sigma - scale * np.sqrt(1 - prev)}
    again = {"x": 1 / np.cos(turn), "x0": -sigma * np.tan(turn), "epsilon": alpha * np.tan(turn)}
    rows = {
        name: np.stack([first[name], *[again[name]] * (iterations - 1)], axis=1).ravel()
        for name in first
    }
    begins = np.arange(steps.num_steps * iterations) % iterations == 0
    table = step_table(np.repeat(steps.timesteps, iterations), begins=begins, **rows)
    return Sampler(table, "ddim_inversion", inversion_step, memory_size=1)


def inversion_step(denoiser: Denoiser, state: State, row: Row, noise: None) -> State:
    """One iteration: x_t from x_{t-1} (the memory) and the denoiser at the present guess of x_t."""
    cleaner = jnp.where(row["begins"] > 0, state.x, state.memory[0])
    denoised = denoiser(state.x, timestep(row, state.x))
    x = row["x"] * cleaner + row["x0"] * denoised.x0 + row["epsilon"] * denoised.epsilon
    return State(x, (cleaner,))
