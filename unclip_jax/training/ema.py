"""Moving averages of the weights.

Exponential: n steps after its start the decay is min(decay, (1 + n) / (10 + n)), or `decay` at once
without warm-up: early averages forget the random start quickly, and the configured decay takes over
once n is large. Before its start the average follows the weights (decay 0).

Power function (Karras et al. 2023, arXiv 2312.02696, section 3): with

    decay at update t = 1, 2, …  =  (1 - 1/t)^(gamma + 1)

the weights of update k have, after t of them, the share (k^(gamma+1) - (k-1)^(gamma+1)) /
t^(gamma+1): a profile whose length grows with the run. It is named by the standard deviation of
that profile over the length of the run; `post_hoc.py` makes other lengths of stored ones.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from unclip_jax.config.schema import Ema

DecayAt = Callable[[Int[Array, ""]], Float[Array, ""]]
RateAt = Callable[[Int[Array, ""]], Float[Array, ""]]
"""step -> 1 - decay, told so because decays near 1 have too few digits."""


def decay_schedule(decay: float, *, warmup: bool = True, start: int = 0) -> DecayAt:
    """step -> the decay of the update that follows `step` earlier ones."""

    def at(step: Int[Array, ""]) -> Float[Array, ""]:
        n = (step - start).astype(jnp.float32)
        slow = jnp.minimum(decay, (1 + n) / (10 + n)) if warmup else jnp.float32(decay)
        return jnp.where(n < 0, 0.0, slow)

    return at


def power_rate(length: float) -> RateAt:
    """The rates of a power-function average whose relative standard deviation is `length`."""
    exponent = gamma_of(length) + 1

    def at(step: Int[Array, ""]) -> Float[Array, ""]:
        t = (step + 1).astype(jnp.float32)
        return -jnp.expm1(exponent * jnp.log1p(-1 / t))

    return at


def gamma_of(length: float) -> float:
    """gamma > 0 of sigma = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))), for sigma in (0, 0.28).

    That is the root of gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s with s = sigma^-2.
    """
    s = length**-2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def further_averages(config: Ema, start: int) -> dict[str, RateAt]:
    """{name: rates} of the averages that a run keeps beside that of `config.decay`."""

    def rate(decay: float) -> RateAt:
        at = decay_schedule(decay, warmup=config.warmup, start=start)
        return lambda step: 1 - at(step)

    return {
        **{name_of("ema", decay): rate(decay) for decay in config.others},
        **{name_of("power", length): power_rate(length) for length in config.power},
    }


def name_of(kind: str, value: float) -> str:
    """What an average is called in a state: "ema_0_999"; dots part the levels in a checkpoint."""
    return f"{kind}_{value}".replace(".", "_")


def update(ema_params: Any, params: Any, decay: Float[Array, ""]) -> Any:
    """decay * ema + (1 - decay) * params, leaf by leaf."""
    return move(ema_params, params, 1 - decay)


def move(average: Any, params: Any, rate: Float[Array, ""]) -> Any:
    """The average, moved by a share of the way to the parameters."""
    return jax.tree.map(lambda a, p: a + rate * (p - a), average, params)


def update_all(
    averages: Mapping[str, Any], params: Any, rates: Mapping[str, RateAt], step: Int[Array, ""]
) -> dict[str, Any]:
    """Further averages after one more update."""
    return {name: move(tree, params, rates[name](step)) for name, tree in averages.items()}
