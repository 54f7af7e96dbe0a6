"""Ranks against a plain sort, ties, and chance against enumeration of all orders."""

import itertools

import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.evaluation.retrieval import (
    chance_rank,
    chance_recall,
    recall_hits,
    retrieval_ranks,
    right_counts,
)
from unclip_jax.evaluation.vectors import as_matrix, label_codes, unit

RNG = np.random.default_rng(0)


def ranks_by_sorting(queries, candidates, wanted, offered):
    """Wrong candidates before the first right one in the sorted list, plus one."""
    found = []
    for query, label in zip(queries, wanted, strict=True):
        cosines = [
            float(np.dot(query, c) / np.linalg.norm(query) / np.linalg.norm(c)) for c in candidates
        ]
        order = sorted(range(len(candidates)), key=lambda index: -cosines[index])
        found.append(1 + [offered[index] for index in order].index(label))
    return found


@pytest.mark.parametrize("labels", [7, 40])
def test_ranks_are_those_of_a_sort(labels):
    queries, candidates = RNG.normal(size=(30, 6)), RNG.normal(size=(50, 6))
    offered = [f"l{index % labels}" for index in range(50)]
    wanted = [f"l{RNG.integers(labels)}" for _ in range(30)]
    ranks = retrieval_ranks(queries, candidates, wanted, offered)
    assert ranks.tolist() == ranks_by_sorting(queries, candidates, wanted, offered)


def test_more_queries_than_a_block_holds():
    queries = RNG.normal(size=(2500, 4))
    labels = [str(index) for index in range(2500)]
    near = queries + 1e-6 * RNG.normal(size=queries.shape)
    assert (retrieval_ranks(near, queries, labels, labels) == 1).all()
    shifted = labels[1:] + labels[:1]
    assert (retrieval_ranks(near, queries, shifted, labels) > 1).all()


def test_lengths_do_not_matter():
    queries, candidates = RNG.normal(size=(20, 5)), RNG.normal(size=(20, 5))
    labels = [str(index) for index in range(20)]
    scaled = retrieval_ranks(queries * RNG.uniform(0.1, 9, (20, 1)), 3 * candidates, labels, labels)
    np.testing.assert_array_equal(scaled, retrieval_ranks(queries, candidates, labels, labels))


def test_ties_count_against_the_query():
    alike = np.tile(RNG.normal(size=(1, 33)), (9, 1))
    labels = [str(index) for index in range(9)]
    assert (retrieval_ranks(alike, alike, labels, labels) == 9).all()
    assert (retrieval_ranks(np.zeros((9, 33)), alike, labels, labels) == 9).all()


def test_recall_counts_ranks_up_to_k():
    np.testing.assert_array_equal(recall_hits(np.array([1, 5, 6]), 5), [1.0, 1.0, 0.0])


@pytest.mark.parametrize(("candidates", "right"), [(5, 1), (5, 2), (4, 3), (3, 3)])
def test_chance_is_the_mean_over_all_orders(candidates, right):
    orders = list(itertools.permutations([True] * right + [False] * (candidates - right)))
    ranks = np.array([1 + order.index(True) for order in orders])
    counts = np.array([right])
    for k in range(1, candidates + 1):
        assert chance_recall(candidates, counts, k) == pytest.approx(np.mean(ranks <= k))
    assert chance_rank(candidates, counts) == pytest.approx(np.mean(ranks))


def test_chance_is_the_mean_over_queries():
    mixed = chance_recall(6, np.array([1, 3]), 2)
    each = [chance_recall(6, np.array([count]), 2) for count in (1, 3)]
    assert mixed == pytest.approx(np.mean(each))
    assert chance_recall(3, np.array([1]), 5) == 1.0  # k beyond all candidates


def test_right_counts():
    assert right_counts(["b", "a", "b"], ["a", "b", "b", "c"]).tolist() == [2, 1, 2]


def test_mistakes_are_named():
    two = np.eye(2)
    with pytest.raises(ValueError, match="no candidate with its own label"):
        retrieval_ranks(two, two, ["a", "x"], ["a", "b"])
    with pytest.raises(ValueError, match="2 queries with 1 labels"):
        retrieval_ranks(two, two, ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="2 dimensions, candidates 3"):
        retrieval_ranks(two, np.eye(3), ["a", "b"], ["a", "b", "c"])


def test_embeddings_are_checked():
    with pytest.raises(UserError, match="generated: 2 of 3 embeddings hold NaN or infinity"):
        as_matrix("generated", np.array([[1.0, np.nan], [1.0, 1.0], [np.inf, 0.0]]))
    for bad in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="must be a matrix"):
            as_matrix("x", bad)


def test_unit_vectors_and_labels():
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]])
    first, second = label_codes(["b", "a"], ["a", "c"])
    assert first.tolist() == [1, 0]
    assert second.tolist() == [0, 2]
