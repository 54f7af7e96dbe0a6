"""Confidence intervals of means by resampling (the percentile bootstrap, Efron 1979).

Examples that belong together (pictures of one concept) are not independent, so whole groups are
drawn: a resample takes as many groups as there are, with replacement, and averages their members.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.vectors import label_codes


def bootstrap_interval(
    values: Float64[np.ndarray, " n"],
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval that holds the mean of `values` with probability `level`.

    Args:
      values: one number for each example.
      groups: the group of each example; None means each is its own.
      level: between 0 and 1.
      resamples: how many means the quantiles are taken of.
      seed: of the draws; the same seed gives the same interval.
    """
    if groups is None:
        sums, sizes = values, np.ones(len(values))
    else:
        (codes,) = label_codes(groups)
        sums, sizes = np.bincount(codes, weights=values), np.bincount(codes).astype(np.float64)
    draws = np.random.default_rng(seed)
    counts = draws.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    low, high = np.quantile((counts @ sums) / (counts @ sizes), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
