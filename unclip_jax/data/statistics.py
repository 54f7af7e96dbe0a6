"""Mean, deviation and principal components of embeddings, in one pass over rows of any number.

Sums are float64. Parts are joined by the update of Chan, Golub and LeVeque (1979), extended from
variances to the scatter matrix S = sum (x - mean)(x - mean)^T:

    S_ab = S_a + S_b + d d^T n_a n_b / (n_a + n_b),   d = mean_b - mean_a

The principal components are the eigenvectors of S / n, by falling eigenvalue. The unCLIP paper's
autoregressive prior keeps 319 of 1,024 of them (arXiv 2204.06125, section 2.2).
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from unclip_jax.data.embeddings import EmbeddingRows, present
from unclip_jax.errors import UserError

_BLOCK = 65536  # rows looked at together


@dataclass(frozen=True)
class Moments:
    """`count` rows, their mean [D] and scatter [D, D] about it, in float64."""

    count: int
    mean: Float[np.ndarray, " D"]
    scatter: Float[np.ndarray, "D D"]

    @property
    def std(self) -> Float[np.ndarray, " D"]:
        return np.sqrt(np.diag(self.scatter) / self.count)

    def components(self) -> tuple[Float[np.ndarray, "D D"], Float[np.ndarray, " D"]]:
        """Returns (unit components as rows, variance along each), the largest first."""
        variances, vectors = np.linalg.eigh(self.scatter / self.count)
        order = np.argsort(-variances, kind="stable")
        vectors = vectors.T[order]
        # A component's sign is free: let its largest entry be positive, so that files compare.
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], axis=1)
        return vectors * np.sign(largest), np.maximum(variances[order], 0)

    def joined(self, other: "Moments") -> "Moments":
        total = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter = scatter + np.outer(apart, apart) * self.count * other.count / total
        return Moments(total, self.mean + apart * other.count / total, scatter)


def moments(parts: Iterable[EmbeddingRows | np.ndarray]) -> Moments:
    """Returns the moments of all rows that hold an embedding; a part may be a memory map."""
    found = None
    for part in parts:
        for start in range(0, len(part), _BLOCK):
            rows = np.asarray(part[start : start + _BLOCK], np.float64)
            rows = rows[present(rows)]
            if len(rows):
                mean = rows.mean(axis=0)
                own = Moments(len(rows), mean, (rows - mean).T @ (rows - mean))
                found = own if found is None else found.joined(own)
    if found is None:
        raise UserError("no embeddings to take statistics of: every row is missing")
    return found


def encode_moments(found: Moments, **facts: str) -> bytes:
    """Returns an .npz: mean, std, components, variances, count, and `facts` as strings."""
    components, variances = found.components()
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        "mean": found.mean,
        "std": found.std,
        "components": components.astype(np.float32),
        "variances": variances,
        "count": np.int64(found.count),
        **{name: np.str_(value) for name, value in facts.items()},
    }
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
