"""DPM-Solver++(2M), and its SDE form (Lu et al. 2022, algorithm 2 and appendix A).

With lambda = log(alpha / sigma), h the rise of lambda over the step, D_i the predicted x_0:

    D      = (1 + w) D_i - w D_{i-1},       w = h_i / (2 h_{i-1}),      their line, half a step on
    ODE:  x' = sigma'/sigma x       + alpha' (1 - e^-h)  D
    SDE:  x' = sigma'/sigma e^-h x  + alpha' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) noise

The linear part is solved exactly, so large first steps from almost pure noise are safe. e^-h is
(alpha sigma') / (sigma alpha'), finite also where lambda is not. First order (w = 0) at the first
step, which has no past, and at the last, where h is infinite and x' = D_i.

The formula is meant for even steps of lambda, w = 1/2. Even steps of t end with h several times the
one before, and the line then shoots far beyond both points; so w is held to at most `max_weight`.
On a mixture of 16 Gaussians, cosine schedule, that divides the median error by 7 at 80 steps (0.020
to 0.0026).
"""

import numpy as np
from jaxtyping import Array

from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, timestep, visited
from unclip_jax.diffusion.schedule import NoiseSchedule


def dpm_solver_2m(
    schedule: NoiseSchedule, num_steps: Spacing, *, max_weight: float = 0.5
) -> Sampler:
    """DPM-Solver++(2M) for the probability-flow ODE: second order, one network call a step.

    Args:
      max_weight: bound of w, see above; math.inf for the formula as published.
    """
    columns = _columns(visited(schedule, num_steps), max_weight)
    columns["x"] = columns["shrink"]
    columns["x0"] = columns["alpha"] * (1 - columns["decay"])
    return Sampler(_table(columns, "x", "x0"), "dpm++2m", multistep, memory_size=1)


def dpm_solver_2m_sde(
    schedule: NoiseSchedule, num_steps: Spacing, *, max_weight: float = 0.5
) -> Sampler:
    """DPM-Solver++(2M) for the reverse SDE; max_weight as in `dpm_solver_2m`."""
    columns = _columns(visited(schedule, num_steps), max_weight)
    fresh = 1 - columns["decay"] ** 2
    columns["x"] = columns["shrink"] * columns["decay"]
    columns["x0"] = columns["alpha"] * fresh
    columns["std"] = columns["sigma"] * np.sqrt(fresh)
    table = _table(columns, "x", "x0", "std")
    return Sampler(table, "dpm++2m_sde", noisy_multistep, memory_size=1, stochastic=True)


def multistep(denoiser: Denoiser, state: State, row: Row, noise: None) -> State:
    """One step; the memory is the last predicted x_0."""
    denoised = denoiser(state.x, timestep(row, state.x))
    line = (1 + row["w"]) * denoised.x0 - row["w"] * state.memory[0]
    return State(row["x"] * state.x + row["x0"] * line, (denoised.x0,))


def noisy_multistep(denoiser: Denoiser, state: State, row: Row, noise: Array) -> State:
    """One step of the SDE form."""
    state = multistep(denoiser, state, row, None)
    return State(state.x + row["std"] * noise, state.memory)


def _columns(steps: NoiseSchedule, max_weight: float) -> dict[str, np.ndarray]:
    """Per step in sampling order: alpha', sigma', sigma'/sigma, e^-h and w."""
    alpha_bars, after = steps.alpha_bars[::-1], steps.alpha_bars_prev[::-1]
    alpha, sigma = np.sqrt(alpha_bars), np.sqrt(1 - alpha_bars)
    alpha_after, sigma_after = np.sqrt(after), np.sqrt(1 - after)
    with np.errstate(divide="ignore"):
        rise = np.log(alpha_after / sigma_after) - np.log(alpha / sigma)
    w = np.zeros_like(rise)
    w[1:-1] = np.minimum(rise[1:-1] / (2 * rise[:-2]), max_weight)
    return {
        "t": steps.timesteps[::-1],
        "alpha": alpha_after,
        "sigma": sigma_after,
        "shrink": sigma_after / sigma,
        "decay": alpha * sigma_after / (sigma * alpha_after),
        "w": w,
    }


def _table(columns: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return step_table(columns["t"], w=columns["w"], **{name: columns[name] for name in names})
