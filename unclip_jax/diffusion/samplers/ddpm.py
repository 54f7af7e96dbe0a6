"""DDPM: ancestral sampling, one draw of the reverse step p(x_{t-1} | x_t) after another.

    x_{t-1} = c0_t x0 + ct_t x_t + std_t noise

with the coefficients and variances of `process`, of the respaced schedule. The last step has no
noise and returns the predicted x_0 (there c0 = 1, ct = 0). With a learned range, log variance is
interpolated per value (Nichol & Dhariwal 2021, eq. 15).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unclip_jax.diffusion.choices import parse
from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.process import Variance, fixed_log_variance, posterior_table
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_table, timestep, visited
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


def ddpm(
    schedule: NoiseSchedule, num_steps: Spacing, *, variance: Variance | str = "fixed_small"
) -> Sampler:
    """Ancestral sampling; variance "fixed_small", "fixed_large" or "learned_range"."""
    variance = parse(Variance, "variance", variance)
    steps = visited(schedule, num_steps)
    table = posterior_table(steps)
    noisy = np.arange(steps.num_steps) > 0
    if variance is Variance.LEARNED_RANGE:
        spread = {"low": table.log_variance, "high": table.log_beta, "noisy": noisy}
    else:
        spread = {"std": noisy * np.exp(0.5 * fixed_log_variance(table, variance))}
    rows = {"x0": table.x0, "x_t": table.x_t, **spread}
    return Sampler(
        table=step_table(steps.timesteps[::-1], **{k: column[::-1] for k, column in rows.items()}),
        name="ddpm",
        step=learned_step if variance is Variance.LEARNED_RANGE else fixed_step,
        stochastic=True,
    )


def fixed_step(denoiser: Denoiser, state: State, row: Row, noise: Array) -> State:
    """A step with the table's standard deviation."""
    denoised = denoiser(state.x, timestep(row, state.x))
    return State(row["x0"] * denoised.x0 + row["x_t"] * state.x + row["std"] * noise)


def learned_step(denoiser: Denoiser, state: State, row: Row, noise: Array) -> State:
    """A step with the network's variance."""
    denoised = denoiser(state.x, timestep(row, state.x))
    fraction = denoised.variance_fraction
    if fraction is None:
        raise UserError("variance learned_range needs a denoiser made with learned_variance=True")
    log_variance = fraction * row["high"] + (1 - fraction) * row["low"]
    std = row["noisy"] * jnp.exp(0.5 * log_variance)
    return State(row["x0"] * denoised.x0 + row["x_t"] * state.x + std * noise)
