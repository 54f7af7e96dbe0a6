"""Diagnostics by quartile of the timestep.

A diffusion loss falls by orders of magnitude from t = 0 to T-1, so its mean says little.
Diagnostics stay {name: [B]} until they are reduced, to a sum and a count for each quarter of [0,
T): sums and counts add up over microbatches and devices, and only their final quotient is a mean.
A quartile that no example fell in has count 0; `quartile_means` gives NaN for it, never a made-up
0.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class QuartileSums(NamedTuple):
    """Per quartile of t, [4]: the sum of a diagnostic, and how many examples it sums."""

    sums: Float[Array, " 4"]
    counts: Float[Array, " 4"]


def quartile_sums(
    diagnostics: Mapping[str, Float[Array, " b"]],
    t: Int[Array, " b"],
    num_steps: int,
    valid: Bool[Array, " b"] | None = None,
) -> dict[str, QuartileSums]:
    """Sums and counts of each diagnostic over quartiles of t; examples not `valid` are left out."""
    quartile = (4 * t) // num_steps
    member = jnp.arange(4)[:, None] == quartile[None, :]
    if valid is not None:
        member = member & valid[None, :]
    counts = member.sum(axis=1, dtype=jnp.float32)
    return {
        # where, not a product: an infinite loss in one quartile must not spoil the others.
        name: QuartileSums(jnp.where(member, values[None, :], 0).sum(axis=1), counts)
        for name, values in diagnostics.items()
    }


def quartile_means(reduced: Mapping[str, QuartileSums]) -> dict[str, Float[Array, " 4"]]:
    """Mean of each diagnostic in each quartile, NaN where there is no example."""
    return {name: value.sums / value.counts for name, value in reduced.items()}
