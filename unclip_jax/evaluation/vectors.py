"""Embeddings as float64 matrices: checked, brought to unit length, compared by cosine."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Array, Float, Float64, Int64

from unclip_jax.errors import UserError

Vectors = Float[np.ndarray, "n d"] | Float[Array, "n d"]
_BLOCK_ROWS = 1024


def as_matrix(name: str, vectors: Vectors) -> Float64[np.ndarray, "n d"]:
    """`vectors` in float64.

    Raises:
      ValueError: not a matrix with at least one row.
      UserError: a value is not finite, as after a diverged training.
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a matrix [n, d], not {matrix.shape}")
    bad = int(np.sum(~np.isfinite(matrix).all(axis=1)))
    if bad:
        raise UserError(f"{name}: {bad} of {len(matrix)} embeddings hold NaN or infinity")
    return matrix


def unit(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Each row divided by its length; a row of zeros stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def row_blocks(count: int) -> Iterator[slice]:
    """Slices that cover `count` rows, so that an n x n matrix is never held whole."""
    for start in range(0, count, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, count))


def label_codes(*label_lists: Sequence[str]) -> list[Int64[np.ndarray, " n"]]:
    """Whole numbers in place of labels, the same number for the same label in every list."""
    number = {label: code for code, label in enumerate(sorted(set().union(*label_lists)))}
    return [np.array([number[label] for label in labels], np.int64) for labels in label_lists]
