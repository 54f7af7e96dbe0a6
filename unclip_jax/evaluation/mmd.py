"""Maximum mean discrepancy between two sets of features (Gretton et al. 2012).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

estimated without bias (their eq. 3: pairs of a sample with itself are left out), so its expectation
does not depend on how many samples there are, unlike the Fréchet distance; near zero it may be
negative. Two kernels: the cubic one of KID (Binkowski et al. 2018, eq. 6), and the Gaussian one of
CMMD (Jayasumana et al. 2024): sigma 10 on unit vectors, times 1000.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.vectors import Vectors, as_matrix, row_blocks, unit

Kernel = Callable[
    [Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]], Float64[np.ndarray, "n m"]
]

_CMMD_SIGMA = 10.0
_CMMD_FACTOR = 1000.0


def cubic_kernel(
    x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]
) -> Float64[np.ndarray, "n m"]:
    """(x . y / d + 1)^3."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(sigma: float) -> Kernel:
    """exp(-|x - y|^2 / (2 sigma^2))."""

    def kernel(
        x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]
    ) -> Float64[np.ndarray, "n m"]:
        squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        return np.exp(-np.clip(squares, 0, None) / (2 * sigma**2))

    return kernel


def mmd_squared(first: Vectors, second: Vectors, kernel: Kernel) -> float:
    """The unbiased estimate of MMD^2 between features [n, d] and [m, d].

    Raises:
      ValueError: fewer than two samples in a set.
    """
    x, y = as_matrix("first", first), as_matrix("second", second)
    if min(len(x), len(y)) < 2:
        raise ValueError("an unbiased estimate needs at least two samples in each set")
    return _mean_of_pairs(x, kernel) + _mean_of_pairs(y, kernel) - 2 * _mean_across(x, y, kernel)


def kernel_distance(first: Vectors, second: Vectors) -> float:
    """MMD^2 with the cubic kernel: what KID is in Inception features."""
    return mmd_squared(first, second, cubic_kernel)


def gaussian_distance(first: Vectors, second: Vectors) -> float:
    """1000 MMD^2 of the directions with the Gaussian kernel of sigma 10, as CMMD."""
    directions = unit(as_matrix("first", first)), unit(as_matrix("second", second))
    return _CMMD_FACTOR * mmd_squared(*directions, gaussian_kernel(_CMMD_SIGMA))


def _mean_of_pairs(x: Float64[np.ndarray, "n d"], kernel: Kernel) -> float:
    total = 0.0
    for rows in row_blocks(len(x)):
        values = kernel(x[rows], x)
        own = np.arange(rows.start, rows.stop)
        total += values.sum() - values[own - rows.start, own].sum()
    return total / (len(x) * (len(x) - 1))


def _mean_across(
    x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"], kernel: Kernel
) -> float:
    total = sum(kernel(x[rows], y).sum() for rows in row_blocks(len(x)))
    return float(total) / (len(x) * len(y))
