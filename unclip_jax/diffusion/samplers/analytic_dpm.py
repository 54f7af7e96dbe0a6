"""Analytic-DPM: ancestral sampling with the best variance for the given network (Bao et al. 2022).

The optimal variance of a reverse step follows from how far the network can tell the noise,
m_t = E |epsilon_hat|^2 / d, estimated once from data (theorem 1; m_t = (1 - alpha_bar_t) Gamma_t):

    std^2 = l^2 + (sqrt((1 - alpha_bar_t) / alpha_t) - sqrt(1 - alpha_bar_{t-1} - l^2))^2 (1 - m_t)

where l^2 = eta^2 times the posterior variance (eta = 1: DDPM; 0: DDIM) and alpha_t =
alpha_bar_t / alpha_bar_{t-1} over the step taken, however long. Of data confined to [-limit,
limit], x_0 varies by at most limit^2, which bounds the second term (theorem 3). For isotropic
Gaussian data a step of any length is exact. The paper's prior samples with this, 64 steps.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unclip_jax.core.rng import fold_in_name
from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.process import GaussianProcess
from unclip_jax.diffusion.respacing import Spacing
from unclip_jax.diffusion.samplers.base import Sampler, step_noise, step_table, visited
from unclip_jax.diffusion.samplers.ddim import noisy_step
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Moments:
    """What Analytic-DPM must know of a trained network.

    Attributes:
      timesteps: int32 [K], timesteps of the training schedule.
      squared_epsilon: float64 [K], the mean of epsilon_hat^2 over values and examples.
      examples: how many examples it is the mean of.
    """

    timesteps: np.ndarray
    squared_epsilon: np.ndarray
    examples: int


def estimate_moments(
    process: GaussianProcess,
    denoiser: Denoiser,
    x0: Float[Array, "b *data"],
    keys: Key[Array, " b"],
    timesteps: np.ndarray,
) -> Moments:
    """Moments from one batch of data, of each of `timesteps`; `merge_moments` adds batches.

    Args:
      process: of the schedule the network was trained with.
      denoiser: conditioned on the batch, without guidance and thresholding.
      timesteps: at least those that will be visited, see `spaced_timesteps`.
    """
    timesteps = np.asarray(timesteps, np.int32)
    each = squared_epsilon(process, denoiser, x0, keys, jnp.asarray(timesteps))
    return Moments(timesteps, np.asarray(each, np.float64).mean(axis=1), len(x0))


def squared_epsilon(
    process: GaussianProcess,
    denoiser: Denoiser,
    x0: Float[Array, "b *data"],
    keys: Key[Array, " b"],
    timesteps: Int[Array, " k"],
) -> Float[Array, "k b"]:
    """The mean of epsilon_hat^2 over the values of each example; arguments as above."""
    keys = fold_in_name(keys, "moments")

    def at_step(step: Int[Array, ""]) -> Float[Array, " b"]:
        t = jnp.full(len(x0), step)
        x_t = process.corrupt(x0, t, step_noise(keys, step, x0.shape[1:]))
        return jnp.mean(jnp.square(denoiser(x_t, t).epsilon).reshape(len(x0), -1), axis=1)

    return jax.lax.map(at_step, timesteps)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Moments of the examples of both, at the same timesteps."""
    if not np.array_equal(first.timesteps, second.timesteps):
        raise UserError("moments can be merged only if they are of the same timesteps")
    examples = first.examples + second.examples
    total = first.examples * first.squared_epsilon + second.examples * second.squared_epsilon
    return Moments(first.timesteps, total / examples, examples)


def analytic_dpm(
    schedule: NoiseSchedule,
    num_steps: Spacing,
    *,
    moments: Moments,
    eta: float = 1.0,
    limit: float | None = None,
) -> Sampler:
    """Ancestral sampling with analytic variances.

    Args:
      moments: of every timestep that is visited.
      eta: 1 for the DDPM mean, 0 for DDIM's.
      limit: data lie in [-limit, limit]; None for unbounded data.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"Analytic-DPM's eta must be between 0 and 1, got {eta}")
    steps = visited(schedule, num_steps)
    if steps.alpha_bars[-1] == 0:
        raise UserError("Analytic-DPM has no variance for a step from zero terminal SNR")
    spread = 1 - np.clip(_look_up(moments, steps.timesteps), 0, 1)
    alpha_bars, prev = steps.alpha_bars, steps.alpha_bars_prev
    forced = eta**2 * (1 - prev) / (1 - alpha_bars) * steps.betas
    epsilon = np.sqrt(1 - prev - forced)
    optimal = (np.sqrt((1 - alpha_bars) / steps.alphas) - epsilon) ** 2 * spread
    if limit is not None:
        x0_factor = np.sqrt(prev) - epsilon * np.sqrt(alpha_bars / (1 - alpha_bars))
        optimal = np.minimum(optimal, (x0_factor * limit) ** 2)
    # The last step returns x_0 itself: its variance would be noise added to the result.
    std = np.sqrt(forced + optimal) * (np.arange(steps.num_steps) > 0)
    columns = {"x0": np.sqrt(prev), "epsilon": epsilon, "std": std}
    return Sampler(
        table=step_table(
            steps.timesteps[::-1], **{name: column[::-1] for name, column in columns.items()}
        ),
        name="analytic_dpm",
        step=noisy_step,
        stochastic=True,
    )


def _look_up(moments: Moments, timesteps: np.ndarray) -> np.ndarray:
    known = dict(zip(moments.timesteps.tolist(), moments.squared_epsilon, strict=True))
    missing = sorted(set(timesteps.tolist()) - set(known))
    if missing:
        raise UserError(
            f"the moments lack timestep {missing[0]} and {len(missing) - 1} more of the "
            f"{len(timesteps)} to visit: estimate them at the same spacing"
        )
    return np.array([known[t] for t in timesteps.tolist()])
