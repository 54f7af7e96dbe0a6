"""Precision, recall and coverage of a generator on k-nearest-neighbour manifolds.

Around each member of a set lies a ball that reaches to the member's k-th nearest neighbour in the
set. Precision: the share of generated samples in some ball of the real ones (are they plausible?).
Recall: the share of real samples in some ball of the generated ones (Kynkäänniemi et al. 2019).
Recall is fooled by samples far out, whose balls are huge; coverage is not: the share of real
samples with a generated one in their own ball (Naeem et al. 2020). Between two sets of n and m
samples of one distribution its expectation is 1 - prod_{i=1..k} (n - i) / (n + m - i).
"""

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.vectors import Vectors, as_matrix, row_blocks


def precision_recall(generated: Vectors, real: Vectors, k: int = 3) -> tuple[float, float]:
    """Precision and recall of `generated` [n, d] for `real` [m, d], Euclidean.

    Raises:
      ValueError: a set with k members or fewer.
    """
    fake, true = as_matrix("generated", generated), as_matrix("real", real)
    if min(len(fake), len(true)) <= k:
        raise ValueError(f"the {k} nearest neighbours need more than {k} samples in each set")
    return _share_inside(fake, true, k), _share_inside(true, fake, k)


def coverage(generated: Vectors, real: Vectors, k: int = 5) -> float:
    """The share of `real` [m, d] with a member of `generated` [n, d] in its own ball.

    Raises:
      ValueError: `real` has k members or fewer.
    """
    fake, true = as_matrix("generated", generated), as_matrix("real", real)
    if len(true) <= k:
        raise ValueError(f"the {k} nearest neighbours need more than {k} real samples")
    radii = _neighbour_distances(true, k)
    covered = 0
    for rows in row_blocks(len(true)):
        covered += int(np.sum(_squares(true[rows], fake).min(axis=1) <= radii[rows]))
    return covered / len(true)


def _share_inside(
    points: Float64[np.ndarray, "n d"], centres: Float64[np.ndarray, "m d"], k: int
) -> float:
    radii = _neighbour_distances(centres, k)
    inside = 0
    for rows in row_blocks(len(points)):
        inside += int(np.sum((_squares(points[rows], centres) <= radii[None]).any(axis=1)))
    return inside / len(points)


def _neighbour_distances(x: Float64[np.ndarray, "n d"], k: int) -> Float64[np.ndarray, " n"]:
    """Squared distance of each row to its k-th nearest other row."""
    distances = np.empty(len(x))
    for rows in row_blocks(len(x)):
        squares = _squares(x[rows], x)
        own = np.arange(rows.start, rows.stop)
        squares[own - rows.start, own] = np.inf
        distances[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return distances


def _squares(
    x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]
) -> Float64[np.ndarray, "n m"]:
    return np.clip((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 0, None)
