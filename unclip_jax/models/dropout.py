"""Dropout whose masks belong to examples: one key per example, nothing shared across the batch.

Row i of a batch is masked by keys[i] alone, so the mask depends on no other row, no batch size, no
mesh, and not on how a batch is split for gradient accumulation. Layers derive their own keys from
the examples' keys by their path.

Source: Srivastava et al. 2014.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def dropout(
    x: Float[Array, "b *dims"], rate: float, keys: Key[Array, " b"]
) -> Float[Array, "b *dims"]:
    """Zeroes values with probability `rate` and scales the others by 1 / (1 - rate)."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def active_dropout_keys(
    rate: float, deterministic: bool, keys: Key[Array, " b"] | None
) -> Key[Array, " b"] | None:
    """The keys, or None where nothing is to be dropped.

    Raises:
      ValueError: if dropout is on and the caller gave no keys for it.
    """
    if deterministic or not rate:
        return None
    if keys is None:
        raise ValueError(f"dropout of {rate} with deterministic=False needs dropout_keys [B]")
    return keys
