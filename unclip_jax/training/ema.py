"""Exponential moving average of the weights.

decay_n = min(decay, (1 + n) / (10 + n)) after n updates: early averages forget the random start
quickly, and the configured decay takes over once n is large.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def decay_at(step: Int[Array, ""], decay: float) -> Float[Array, ""]:
    """The decay of the update that follows `step` earlier ones."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + n) / (10 + n))


def update(ema_params: Any, params: Any, decay: Float[Array, ""]) -> Any:
    """decay * ema + (1 - decay) * params, leaf by leaf."""
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema_params, params)
