"""Distances between generated and real pictures as sets, each between two anchors.

Three comparisons are made with equally many samples, so that they can be read side by side: the
generated pictures of one half of the captions against the real pictures of the other half (the
value), real against real in the same halves (the ceiling: what a perfect generator reaches), noise
against real (the floor). All are averaged over several halvings; the interval is their spread.

Embeddings are compared as directions (unit length).
"""

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.frechet import frechet_distance
from unclip_jax.evaluation.manifold import coverage, precision_recall
from unclip_jax.evaluation.mmd import gaussian_distance
from unclip_jax.evaluation.report import HIGHER, LOWER, Measurement
from unclip_jax.evaluation.vectors import unit

Matrix = Float64[np.ndarray, "n d"]

SMALLEST_SET = 12  # halves of 6: enough for a fifth neighbour
_HALVINGS = 10


def set_distances(
    generated: Matrix, real: Matrix, noise: Matrix, *, space: str, seed: int = 0
) -> tuple[Measurement, ...]:
    """Fréchet distance, MMD, precision and coverage of `generated` for `real`.

    Args:
      generated: embeddings [n, d], n at least `SMALLEST_SET`.
      real: the real counterpart of each row, [n, d].
      noise: what a useless generator would give, [n, d].
      space: name of the feature space, which the names of the metrics end with.
      seed: of the halvings.
    """
    directions = {
        "value": unit(generated),
        "ceiling": unit(real),
        "floor": unit(noise),
    }
    count = len(real) // 2
    found: dict[str, list[dict[str, float]]] = {role: [] for role in directions}
    for halving in range(_HALVINGS):
        order = np.random.default_rng([seed, halving]).permutation(len(real))
        one, other = order[:count], order[count : 2 * count]
        for role, vectors in directions.items():
            found[role].append(_distances(vectors[one], directions["ceiling"][other]))
    return tuple(
        _summarise(f"{name}_{space}", better, name, found, count)
        for name, better in (
            ("fd", LOWER),
            ("mmd", LOWER),
            ("precision", HIGHER),
            ("coverage", HIGHER),
        )
    )


def _distances(generated: Matrix, real: Matrix) -> dict[str, float]:
    precision, _ = precision_recall(generated, real)
    return {
        "fd": frechet_distance(generated, real),
        "mmd": gaussian_distance(generated, real),
        "precision": precision,
        "coverage": coverage(generated, real),
    }


def _summarise(
    title: str, better: str, name: str, found: dict[str, list[dict[str, float]]], count: int
) -> Measurement:
    values = np.array([each[name] for each in found["value"]])
    low, high = np.quantile(values, [0.025, 0.975])
    value, floor, ceiling = (
        float(np.mean([each[name] for each in found[role]]))
        for role in ("value", "floor", "ceiling")
    )
    return Measurement(title, value, float(low), float(high), floor, ceiling, better, count)


def random_directions(like: Matrix, seed: int) -> Matrix:
    """Vectors without any preferred direction, [n, d] as `like`."""
    return np.random.default_rng(seed).standard_normal(like.shape)
