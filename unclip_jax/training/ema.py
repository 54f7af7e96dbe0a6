"""Exponential moving average of the weights.

n steps after its start the decay is min(decay, (1 + n) / (10 + n)), or `decay` at once without
warm-up: early averages forget the random start quickly, and the configured decay takes over once n
is large. Before its start the average follows the weights (decay 0).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

DecayAt = Callable[[Int[Array, ""]], Float[Array, ""]]


def decay_schedule(decay: float, *, warmup: bool = True, start: int = 0) -> DecayAt:
    """step -> the decay of the update that follows `step` earlier ones."""

    def at(step: Int[Array, ""]) -> Float[Array, ""]:
        n = (step - start).astype(jnp.float32)
        slow = jnp.minimum(decay, (1 + n) / (10 + n)) if warmup else jnp.float32(decay)
        return jnp.where(n < 0, 0.0, slow)

    return at


def update(ema_params: Any, params: Any, decay: Float[Array, ""]) -> Any:
    """decay * ema + (1 - decay) * params, leaf by leaf."""
    return jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema_params, params)
