"""How well a prior predicts image embeddings from captions, beside using the text embedding itself.

CLIP puts a caption near its picture, so the text embedding is already a guess: the baseline (the
"text only" ablation of the unCLIP paper, section 5.1). A prior is worth its compute if its samples
are nearer to the true image embeddings, and are told apart by them: is the own picture the nearest?
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from unclip_jax.evaluation.bootstrap import bootstrap_interval
from unclip_jax.evaluation.distances import SMALLEST_SET, set_distances
from unclip_jax.evaluation.questions import mean_cosine_of_others
from unclip_jax.evaluation.report import HIGHER, LOWER, Measurement, Report
from unclip_jax.evaluation.retrieval import (
    chance_rank,
    chance_recall,
    recall_hits,
    retrieval_ranks,
)
from unclip_jax.evaluation.vectors import Vectors, as_matrix, unit

Matrix = Float64[np.ndarray, "n d"]

_NOTES = (
    "floor: for text_* chance or the mean over other pictures; for sampled_* and the distances "
    "what the text embedding itself reaches.",
    "fd, mmd, precision, coverage: directions of one half of the captions against the true image "
    "embeddings of the other half, n in each.",
)


def evaluate_prior(
    sampled: Vectors,
    image: Vectors,
    text: Vectors,
    *,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    space: str = "clip",
    title: str = "Prior",
    seed: int = 0,
) -> Report:
    """Measures sampled image embeddings, split by split.

    Args:
      sampled: what the prior samples for each caption, [n, d], in the scale of CLIP embeddings.
      image: the true image embedding of each caption, [n, d].
      text: the text embedding of each caption, [n, d].
      groups: rows that are not independent, such as pictures of one concept; for the intervals.
      splits: the split of each row; None means one split, "all".
      space: names the CLIP in the names of the distances.
      title: of the report.
      seed: of resampling and halving.

    Raises:
      ValueError: sizes that differ.
      UserError: an embedding that is not finite.
    """
    matrices = [
        as_matrix(name, vectors)
        for name, vectors in (("sampled", sampled), ("image", image), ("text", text))
    ]
    if len({matrix.shape for matrix in matrices}) != 1:
        raise ValueError(f"sizes differ: {[matrix.shape for matrix in matrices]}")
    labels = list(splits) if splits is not None else ["all"] * len(matrices[0])
    families = list(groups) if groups is not None else [str(row) for row in range(len(labels))]
    if not len(labels) == len(families) == len(matrices[0]):
        raise ValueError(f"{len(matrices[0])} rows, {len(labels)} splits, {len(families)} groups")
    measured = {}
    for split in dict.fromkeys(labels):
        rows = [row for row, label in enumerate(labels) if label == split]
        ours, true, baseline = (matrix[rows] for matrix in matrices)
        families_here = [families[row] for row in rows]
        measured[split] = _measure(ours, true, baseline, families_here, space, seed)
    return Report(title, measured, _NOTES)


def _measure(
    sampled: Matrix, image: Matrix, text: Matrix, groups: Sequence[str], space: str, seed: int
) -> tuple[Measurement, ...]:
    rows = [str(row) for row in range(len(image))]
    right = np.ones(len(image), np.int64)
    chance: dict[str, float | None] = {
        "cosine_to_image": mean_cosine_of_others(image, image, rows),
        "image_recall@1": chance_recall(len(image), right, 1),
        "image_recall@5": chance_recall(len(image), right, 5),
        "image_mean_rank": chance_rank(len(image), right),
    }
    by_text, by_prior = _scores(text, image, rows), _scores(sampled, image, rows)
    baseline: dict[str, float | None] = {
        name: float(values.mean()) for name, values in by_text.items()
    }
    gain = by_prior["cosine_to_image"] - by_text["cosine_to_image"]
    length = np.linalg.norm(sampled, axis=1) / np.linalg.norm(image, axis=1)
    measured = [
        _row("sampled_cosine_gain_over_text", gain, groups, seed, 0.0),
        _row("sampled_length_over_true_length", length, groups, seed, None),
    ]
    for prefix, scores, floor in (("text", by_text, chance), ("sampled", by_prior, baseline)):
        measured += [
            _row(f"{prefix}_{name}", values, groups, seed, floor[name])
            for name, values in scores.items()
        ]
    if len(image) >= SMALLEST_SET:
        measured += set_distances(sampled, image, text, space=space, seed=seed)
    return tuple(measured)


def _row(
    name: str,
    values: Float64[np.ndarray, " n"],
    groups: Sequence[str],
    seed: int,
    floor: float | None,
) -> Measurement:
    low, high = bootstrap_interval(values, groups, seed=seed)
    better = "near 1" if "length" in name else LOWER if name.endswith("rank") else HIGHER
    return Measurement(name, float(values.mean()), low, high, floor, None, better, len(values))


def _scores(
    queries: Matrix, image: Matrix, rows: Sequence[str]
) -> dict[str, Float64[np.ndarray, " n"]]:
    ranks = retrieval_ranks(queries, image, rows, rows)
    return {
        "cosine_to_image": np.sum(unit(queries) * unit(image), axis=1),
        "image_recall@1": recall_hits(ranks, 1),
        "image_recall@5": recall_hits(ranks, 5),
        "image_mean_rank": ranks.astype(np.float64),
    }
