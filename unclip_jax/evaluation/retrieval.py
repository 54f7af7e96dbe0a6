"""Retrieval by cosine: does a query find a candidate that carries its own label?

The rank of a query is 1 + the number of candidates with another label that are at least as similar
to it as its best right one. A tie (within 1e-9) counts against the query, so embeddings that are
all alike score nothing. Recall@k is the share of queries with rank <= k; recall@1 is accuracy.

Chance, for c right ones among m candidates in random order: rank <= k with probability
1 - C(m - c, k) / C(m, k), and expected rank (m + 1) / (c + 1).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from unclip_jax.evaluation.vectors import Vectors, as_matrix, label_codes, row_blocks, unit

Ranks = Int64[np.ndarray, " n"]

_TIE = 1e-9


def retrieval_ranks(
    queries: Vectors,
    candidates: Vectors,
    query_labels: Sequence[str],
    candidate_labels: Sequence[str],
) -> Ranks:
    """The rank of each query, 1 is best.

    Args:
      queries: embeddings [n, d]; lengths do not matter.
      candidates: embeddings [m, d].
      query_labels: n labels.
      candidate_labels: m labels.

    Raises:
      ValueError: a query without any right candidate, or sizes that differ.
    """
    wanted, offered = label_codes(query_labels, candidate_labels)
    query_units = unit(as_matrix("queries", queries))
    candidate_units = unit(as_matrix("candidates", candidates))
    _check_sizes(query_units, candidate_units, wanted, offered)
    ranks = np.empty(len(wanted), np.int64)
    for rows in row_blocks(len(wanted)):
        similarity = query_units[rows] @ candidate_units.T
        ranks[rows] = _ranks(similarity, wanted[rows, None] == offered[None])
    return ranks


def _ranks(similarity: Float64[np.ndarray, "n m"], right: Bool[np.ndarray, "n m"]) -> Ranks:
    if not right.any(axis=1).all():
        raise ValueError("a query has no candidate with its own label")
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    return 1 + np.sum((similarity >= best - _TIE) & ~right, axis=1)


def _check_sizes(
    queries: Float64[np.ndarray, "n d"],
    candidates: Float64[np.ndarray, "m d"],
    wanted: Int64[np.ndarray, " n"],
    offered: Int64[np.ndarray, " m"],
) -> None:
    if len(queries) != len(wanted) or len(candidates) != len(offered):
        raise ValueError(
            f"{len(queries)} queries with {len(wanted)} labels, "
            f"{len(candidates)} candidates with {len(offered)} labels"
        )
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, candidates {candidates.shape[1]}"
        )


def recall_hits(ranks: Ranks, k: int) -> Float64[np.ndarray, " n"]:
    """1 where the query's rank is at most k, else 0; recall@k is the mean."""
    return (ranks <= k).astype(np.float64)


def right_counts(
    query_labels: Sequence[str], candidate_labels: Sequence[str]
) -> Int64[np.ndarray, " n"]:
    """How many candidates carry each query's label."""
    wanted, offered = label_codes(query_labels, candidate_labels)
    counts = np.bincount(offered, minlength=int(wanted.max()) + 1)
    return counts[wanted].astype(np.int64)


def chance_recall(candidates: int, right: Int64[np.ndarray, " n"], k: int) -> float:
    """Mean recall@k of a random order, for `right[i]` right ones among the candidates."""
    k = min(k, candidates)
    misses = [math.comb(candidates - int(c), k) / math.comb(candidates, k) for c in right]
    return 1 - math.fsum(misses) / len(misses)


def chance_rank(candidates: int, right: Int64[np.ndarray, " n"]) -> float:
    """Mean rank in a random order."""
    return float(np.mean((candidates + 1) / (right + 1)))
