"""The Fréchet distance between two sets of features, each taken as a Gaussian.

    d^2 = |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))

(Dowson and Landau 1982; Heusel et al. 2017 eq. 6), in float64 and without the square root of a
product of matrices. Between Gaussians, the last trace is the sum of the square roots of the
eigenvalues of the symmetric S_1^(1/2) S_2 S_1^(1/2). Between samples, with S_i = A_i^T A_i and
A_i = Q_i R_i, it is the sum of the singular values of R_1 R_2^T: nothing is squared, and few
samples of many dimensions are cheap.

It is called FID only in the feature space of one particular Inception network. Here the name says
the space: "fd_clip" is the distance between CLIP image embeddings. It grows as samples get fewer:
compare only distances with as many samples on both sides.
"""

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.vectors import Vectors, as_matrix


def frechet_distance(first: Vectors, second: Vectors) -> float:
    """d^2 between the Gaussians fitted to two sets of features [n, d] and [m, d].

    The covariances divide by n - 1; there may be fewer samples than dimensions.

    Raises:
      ValueError: fewer than two samples, or different dimensions.
    """
    x, y = as_matrix("first", first), as_matrix("second", second)
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"two sets of two or more samples are needed, not {x.shape}, {y.shape}")
    scaled_x, scaled_y = ((each - each.mean(axis=0)) / np.sqrt(len(each) - 1) for each in (x, y))
    triangle_x, triangle_y = (np.asarray(np.linalg.qr(each, "r")) for each in (scaled_x, scaled_y))
    overlap = np.linalg.svd(triangle_x @ triangle_y.T, compute_uv=False).sum()
    spread = np.sum(scaled_x**2) + np.sum(scaled_y**2) - 2 * overlap
    return float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + spread)


def frechet_distance_of_gaussians(
    mean_1: Float64[np.ndarray, " d"],
    covariance_1: Float64[np.ndarray, "d d"],
    mean_2: Float64[np.ndarray, " d"],
    covariance_2: Float64[np.ndarray, "d d"],
) -> float:
    """d^2 between two Gaussians; both covariances symmetric without negative eigenvalues.

    Raises:
      ValueError: different dimensions.
    """
    if covariance_1.shape != covariance_2.shape:
        raise ValueError(f"different dimensions: {covariance_1.shape[0]}, {covariance_2.shape[0]}")
    values, vectors = np.linalg.eigh(covariance_1)
    root = vectors * np.sqrt(np.clip(values, 0, None))  # root @ root.T == covariance_1
    inner = np.linalg.eigvalsh(root.T @ covariance_2 @ root)
    overlap = np.sqrt(np.clip(inner, 0, None)).sum()
    spread = np.trace(covariance_1) + np.trace(covariance_2) - 2 * overlap
    return float(np.sum((mean_1 - mean_2) ** 2) + spread)
