"""The variational bound on the negative log-likelihood, in bits per dimension.

    -log p(x_0) <=  KL(q(x_t | x_0) || N(0, I))                      t = T-1, the prior term
                  + sum_{t>0} KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
                  - log p(x_0 | x_t)                                 t = 0

(Ho et al. 2020, eq. 5.) At t = 0 the likelihood of data with `num_levels` values is the Gaussian's
mass in the value's bin, the outermost bins reaching to infinity (ibid., eq. 13); of continuous
data, the density. The bound of continuous data can be negative.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unclip_jax.core.rng import fold_in_name, normal
from unclip_jax.diffusion.process import Gaussian, GaussianProcess, Variance


class Bound(NamedTuple):
    """The bound of each example: total = prior + sum of terms, bits per dimension."""

    total: Float[Array, " b"]
    prior: Float[Array, " b"]
    terms: Float[Array, "t b"]


def bound_term(
    process: GaussianProcess,
    reverse: Gaussian,
    x0: Float[Array, "b *data"],
    x_t: Float[Array, "b *data"],
    t: Int[Array, " b"],
    *,
    num_levels: int | None = 256,
) -> Float[Array, " b"]:
    """L_t of the bound for p(x_{t-1} | x_t) = `reverse`; x0 in [-1, 1] if num_levels is given."""
    divergence = kl_divergence(process.posterior(x0, x_t, t), reverse)
    likelihood = (
        gaussian_log_density(x0, reverse)
        if num_levels is None
        else discretized_log_likelihood(x0, reverse, num_levels)
    )
    return jnp.where(t == 0, _bits_per_dim(-likelihood), _bits_per_dim(divergence))


def variational_bound(
    process: GaussianProcess,
    denoiser: Callable,
    x0: Float[Array, "b *data"],
    keys: Key[Array, " b"],
    *,
    variance: Variance,
    num_levels: int | None = 256,
) -> Bound:
    """The whole bound, every step of the process evaluated once with its own noise.

    Args:
      process: may be of a respaced schedule: then this is the bound of the shorter chain. The
        denoiser is given the schedule's original timesteps either way.
      denoiser: (x_t, t) -> Denoised, with a variance fraction if variance is LEARNED_RANGE.
    """
    keys = fold_in_name(keys, "bound")
    timesteps = jnp.asarray(process.schedule.timesteps)

    def term(i: Int[Array, ""]) -> Float[Array, " b"]:
        noise = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i), x0.shape[1:])
        t = jnp.full(len(x0), i)
        x_t = process.corrupt(x0, t, noise)
        denoised = denoiser(x_t, jnp.full(len(x0), timesteps[i]))
        reverse = process.reverse(denoised.x0, x_t, t, variance, denoised.variance_fraction)
        return bound_term(process, reverse, x0, x_t, t, num_levels=num_levels)

    terms = jax.lax.map(term, jnp.arange(process.num_steps, dtype=jnp.int32))
    prior = prior_term(process, x0)
    return Bound(prior + terms.sum(axis=0), prior, terms)


def prior_term(process: GaussianProcess, x0: Float[Array, "b *data"]) -> Float[Array, " b"]:
    """KL(q(x_{T-1} | x_0) || N(0, I)): what the bound loses by sampling from pure noise."""
    alpha_bar = process.schedule.alpha_bars[-1]
    last = Gaussian(
        np.float32(np.sqrt(alpha_bar)) * x0,
        jnp.float32(np.log1p(-alpha_bar)).reshape((1,) * x0.ndim),
    )
    unit = Gaussian(jnp.zeros_like(x0), jnp.zeros((1,) * x0.ndim))
    return _bits_per_dim(kl_divergence(last, unit))


def kl_divergence(p: Gaussian, q: Gaussian) -> Array:
    """KL(p || q) in nats, elementwise."""
    difference = p.log_variance - q.log_variance
    squared = jnp.square(p.mean - q.mean) * jnp.exp(-q.log_variance)
    return 0.5 * (jnp.expm1(difference) - difference + squared)


def gaussian_log_density(x: Array, gaussian: Gaussian) -> Array:
    """Log density in nats, elementwise."""
    squared = jnp.square(x - gaussian.mean) * jnp.exp(-gaussian.log_variance)
    return -0.5 * (squared + gaussian.log_variance + np.log(2 * np.pi).astype(np.float32))


def discretized_log_likelihood(x: Array, gaussian: Gaussian, num_levels: int) -> Array:
    """Log of the Gaussian's mass in the bin of x, in nats, elementwise.

    x takes num_levels values evenly over [-1, 1]; a bin reaches half way to its neighbours.
    """
    half_bin = 1 / (num_levels - 1)
    inverse_std = jnp.exp(-0.5 * gaussian.log_variance)
    upper = (x - gaussian.mean + half_bin) * inverse_std
    lower = (x - gaussian.mean - half_bin) * inverse_std
    # A bin in the upper tail is as likely as its mirror image, which does not round to 1 - 1.
    flip = lower + upper > 0
    near = jax.scipy.special.log_ndtr(jnp.where(flip, -lower, upper))
    far = jax.scipy.special.log_ndtr(jnp.where(flip, -upper, lower))
    inner = near + jnp.log(-jnp.expm1(jnp.minimum(far - near, -1e-7)))
    lowest, highest = x < -1 + half_bin, x > 1 - half_bin
    # The outer bins are open: all the mass below, or above.
    return jnp.where(
        lowest,
        jax.scipy.special.log_ndtr(upper),
        jnp.where(highest, jax.scipy.special.log_ndtr(-lower), inner),
    )


def _bits_per_dim(nats: Float[Array, "b *data"]) -> Float[Array, " b"]:
    return nats.reshape(len(nats), -1).mean(axis=1) / np.log(2).astype(np.float32)
