"""The Gaussian diffusion process on arrays: corrupt, convert, posterior, reverse variance.

    q(x_t | x_0)          = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)
    q(x_{t-1} | x_t, x_0) = N(c0_t x_0 + ct_t x_t, posterior_variance_t I)
        c0 = beta_t sqrt(alpha_bar_{t-1}) / (1 - alpha_bar_t)
        ct = sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
        posterior_variance = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)

(Ho et al. 2020, eqs. 4, 6, 7.) The reverse step p(x_{t-1} | x_t) puts the predicted x_0 in place
of x_0 and takes one of three variances: the posterior's (fixed small), beta_t (fixed large), or a
learned point between their logarithms (Nichol & Dhariwal 2021, eq. 15).

At t = 0 the posterior is a point, its log variance -inf. Where a likelihood needs a number there,
the value of step 1 stands in, as in Improved DDPM; samplers add no noise at that step.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from unclip_jax.diffusion.predictions import PredictionType, conversion
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


class Variance(enum.Enum):
    """The variance of a reverse step."""

    FIXED_SMALL = "fixed_small"
    FIXED_LARGE = "fixed_large"
    LEARNED_RANGE = "learned_range"


class Gaussian(NamedTuple):
    """A diagonal Gaussian; log_variance broadcasts against mean."""

    mean: Array
    log_variance: Array


class PosteriorTable(NamedTuple):
    """Float64 [T] coefficients of q(x_{t-1} | x_t, x_0) and of the reverse variances."""

    x0: np.ndarray
    x_t: np.ndarray
    log_variance: np.ndarray
    log_beta: np.ndarray


def posterior_table(schedule: NoiseSchedule) -> PosteriorTable:
    """See the module's formulas; the log variance of step 0 is that of step 1."""
    alpha_bars, prev, betas = schedule.alpha_bars, schedule.alpha_bars_prev, schedule.betas
    variance = betas * (1 - prev) / (1 - alpha_bars)
    variance[0] = variance[1] if schedule.num_steps > 1 else betas[0]
    return PosteriorTable(
        x0=betas * np.sqrt(prev) / (1 - alpha_bars),
        x_t=np.sqrt(schedule.alphas) * (1 - prev) / (1 - alpha_bars),
        log_variance=np.log(variance),
        log_beta=np.log(betas),
    )


def fixed_log_variance(table: PosteriorTable, variance: Variance) -> np.ndarray:
    """Float64 [T] log variance of a reverse step, fixed small or fixed large."""
    if variance is Variance.FIXED_SMALL:
        return table.log_variance
    # Improved DDPM: the decoder of step 0 does better with the posterior's variance of step 1.
    return np.concatenate([table.log_variance[:1], table.log_beta[1:]])


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """The process of a schedule. t are positions in that schedule, int32 [B]; data of any rank."""

    schedule: NoiseSchedule

    @property
    def num_steps(self) -> int:
        return self.schedule.num_steps

    def corrupt(
        self, x0: Float[Array, "b *data"], t: Int[Array, " b"], noise: Float[Array, "b *data"]
    ) -> Float[Array, "b *data"]:
        """x_t: a draw of q(x_t | x_0) for standard normal noise."""
        alpha_bars = self.schedule.alpha_bars
        return at(np.sqrt(alpha_bars), t, x0) * x0 + at(np.sqrt(1 - alpha_bars), t, x0) * noise

    def convert(
        self,
        prediction: Float[Array, "b *data"],
        source: PredictionType,
        target: PredictionType,
        x_t: Float[Array, "b *data"],
        t: Int[Array, " b"],
    ) -> Float[Array, "b *data"]:
        """Read a prediction of one type as another; see `predictions`."""
        a, b = conversion(self.schedule, source, target)
        if source is target:
            return prediction
        return at(a, t, x_t) * x_t + at(b, t, x_t) * prediction

    def posterior(
        self, x0: Float[Array, "b *data"], x_t: Float[Array, "b *data"], t: Int[Array, " b"]
    ) -> Gaussian:
        """q(x_{t-1} | x_t, x_0); log_variance is [B, 1, ..]."""
        table = posterior_table(self.schedule)
        mean = at(table.x0, t, x0) * x0 + at(table.x_t, t, x0) * x_t
        return Gaussian(mean, at(table.log_variance, t, x0))

    def reverse(
        self,
        x0: Float[Array, "b *data"],
        x_t: Float[Array, "b *data"],
        t: Int[Array, " b"],
        variance: Variance,
        fraction: Float[Array, "b *data"] | None = None,
    ) -> Gaussian:
        """p(x_{t-1} | x_t) for a predicted x_0.

        Args:
          fraction: for LEARNED_RANGE, where between the posterior's log variance (0) and log beta
            (1) the network puts it. Not confined to [0, 1].
        """
        table = posterior_table(self.schedule)
        mean = self.posterior(x0, x_t, t).mean
        if variance is not Variance.LEARNED_RANGE:
            return Gaussian(mean, at(fixed_log_variance(table, variance), t, x0))
        if fraction is None:
            raise UserError("a learned variance needs a denoiser made with learned_variance=True")
        low, high = at(table.log_variance, t, x0), at(table.log_beta, t, x0)
        return Gaussian(mean, fraction * high + (1 - fraction) * low)


def at(table: np.ndarray, t: Int[Array, " b"], like: Array) -> Float[Array, "b ..."]:
    """Row t of a float64 table, as float32, shaped to multiply `like` [B, ...]."""
    return per_example(jnp.asarray(table.astype(np.float32))[t], like)


def per_example(values: Float[Array, " b"], like: Array) -> Float[Array, "b ..."]:
    """[B] as [B, 1, ..] with the rank of `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))
