"""Which timestep each training example sees.

* uniform: every example draws from 0..T-1 on its own;
* stratified: example i of a batch of B draws from the i-th of B equal parts of [0, T). The batch
  as a whole covers all noise levels, which lowers the variance of its mean loss (Kingma et al.
  2021, appendix I.1). Rows must come in random order, as training batches do: t follows the row
  number;
* importance: steps are drawn in proportion to the root mean square of the loss they gave, and the
  loss is divided by how much more often they come (Nichol & Dhariwal 2021, section 3.3, eq. 18).
  The memory of losses is an explicit array, kept by the caller.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.core.rng import fold_in_name
from unclip_jax.errors import UserError, did_you_mean

KINDS = ("uniform", "stratified")


def sample_timesteps(
    keys: Key[Array, " b"], num_steps: int, kind: str = "uniform"
) -> Int[Array, " b"]:
    """t for each example, int32 [B] in 0..num_steps-1."""
    if kind not in KINDS:
        raise UserError(f"unknown timestep sampling {kind!r}{did_you_mean(kind, KINDS)}")
    u = _uniform(keys)
    if kind == "stratified":
        u = (jnp.arange(len(keys), dtype=jnp.float32) + u) / len(keys)
    # u < 1, but u * num_steps can round up to num_steps.
    return jnp.minimum((u * num_steps).astype(jnp.int32), num_steps - 1)


def sample_important_timesteps(
    keys: Key[Array, " b"], weights: Float[Array, " t"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """t drawn in proportion to `weights`, and the factor that keeps the mean loss unbiased.

    Args:
      weights: float32 [T], not negative, not all zero; need not sum to 1.

    Returns:
      t, int32 [B], and the correction [B], 1 / (T p_t), to multiply the losses by.
    """
    cumulative = jnp.cumsum(weights)
    t = jnp.searchsorted(cumulative, _uniform(keys) * cumulative[-1], side="right")
    # Rounding may carry a draw past the last step that has any weight.
    last = jnp.searchsorted(cumulative, cumulative[-1])
    t = jnp.minimum(t, last).astype(jnp.int32)
    return t, cumulative[-1] / (len(weights) * weights[t])


def importance_weights(
    second_moments: Float[Array, " t"], uniform: float = 1e-3
) -> Float[Array, " t"]:
    """Probabilities [T] from the mean squared loss of each step, mixed with a uniform share."""
    root = jnp.sqrt(second_moments)
    return (1 - uniform) * root / root.sum() + uniform / len(root)


def update_second_moments(
    second_moments: Float[Array, " t"],
    t: Int[Array, " b"],
    losses: Float[Array, " b"],
    decay: float = 0.9,
) -> Float[Array, " t"]:
    """The running mean squared loss of each step after one batch; start from ones [T].

    Each loss moves its step's value a fraction 1 - decay of the way; several losses of one step
    count by their mean. Steps that the batch did not visit keep their value.
    """
    counts = jnp.zeros_like(second_moments).at[t].add(1.0)
    sums = jnp.zeros_like(second_moments).at[t].add(jnp.square(losses))
    mean = sums / jnp.maximum(counts, 1)
    kept = decay**counts
    return kept * second_moments + (1 - kept) * mean


def _uniform(keys: Key[Array, " b"]) -> Float[Array, " b"]:
    draw = lambda key: jax.random.uniform(key, dtype=jnp.float32)  # noqa: E731
    return jax.vmap(draw)(fold_in_name(keys, "timestep"))
