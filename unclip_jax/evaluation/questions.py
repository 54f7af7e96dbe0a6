"""What is asked of each picture: which caption, style and concept does it show, and how closely.

Every question has an answer for each picture, so that its mean can be bootstrapped, and the same
answer is computed for generated and for real pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from unclip_jax.evaluation.retrieval import (
    chance_rank,
    chance_recall,
    recall_hits,
    retrieval_ranks,
    right_counts,
)
from unclip_jax.evaluation.style_prompts import StylePrompts
from unclip_jax.evaluation.vectors import label_codes, unit

Matrix = Float64[np.ndarray, "n d"]
Scores = Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Captioned:
    """The captions of one split: text embeddings [n, d] and n labels of each kind."""

    text: Matrix
    captions: Sequence[str]
    styles: Sequence[str]
    concepts: Sequence[str]
    prompts: StylePrompts | None

    def take(self, members: Int64[np.ndarray, " k"]) -> "Captioned":
        """Only these rows, under the same style prompts."""
        captions, styles, concepts = (
            [labels[member] for member in members]
            for labels in (self.captions, self.styles, self.concepts)
        )
        return Captioned(self.text[members], captions, styles, concepts, self.prompts)

    def unique(self) -> "Captioned":
        """Each caption once."""
        first = {caption: row for row, caption in reversed(list(enumerate(self.captions)))}
        return self.take(np.sort(np.array(list(first.values()))))


def scores(images: Matrix, real: Matrix, shown: Captioned) -> dict[str, Scores]:
    """The answer of every picture to every question, by question."""
    offered = shown.unique()
    ranks = retrieval_ranks(images, offered.text, shown.captions, offered.captions)
    names, centres = _concept_centres(offered)
    answers = {
        "caption_recall@1": recall_hits(ranks, 1),
        "caption_recall@5": recall_hits(ranks, 5),
        "caption_mean_rank": ranks.astype(np.float64),
        "concept_accuracy": recall_hits(retrieval_ranks(images, centres, shown.concepts, names), 1),
        "concept_accuracy_same_style": _same_style_hits(images, shown, offered),
    }
    if shown.prompts is not None:
        answers["style_accuracy"] = shown.prompts.hits(images, shown.styles, shown.concepts)
    answers["{space}_score"] = _cosines(images, shown.text)
    answers["{space}_cosine_to_real"] = _cosines(images, real)
    return answers


def floors(real: Matrix, shown: Captioned) -> dict[str, float | None]:
    """What each mean is for pictures that have nothing to do with their captions.

    Chance for retrieval; for cosines the mean over pairs of different captions.
    """
    offered = shown.unique()
    right = right_counts(shown.captions, offered.captions)
    concepts = len(set(shown.concepts))
    chance: dict[str, float | None] = {
        "caption_recall@1": chance_recall(len(offered.captions), right, 1),
        "caption_recall@5": chance_recall(len(offered.captions), right, 5),
        "caption_mean_rank": chance_rank(len(offered.captions), right),
        "concept_accuracy": 1 / concepts,
        "concept_accuracy_same_style": _same_style_chance(shown, offered),
        "{space}_score": mean_cosine_of_others(real, shown.text, shown.captions),
        "{space}_cosine_to_real": mean_cosine_of_others(real, real, shown.captions),
    }
    if shown.prompts is not None:
        chance["style_accuracy"] = 1 / len(shown.prompts.styles)
    return chance


def mean_cosine_of_others(first: Matrix, second: Matrix, labels: Sequence[str]) -> float | None:
    """Mean cosine of row i of one and row j of the other over all i, j with different labels.

    None if there is only one label. Sums of unit vectors give it without the n x n matrix.
    """
    (codes,) = label_codes(labels)
    groups = int(codes.max()) + 1
    sums = np.zeros((2, groups, first.shape[1]))
    for total, vectors in zip(sums, (first, second), strict=True):
        np.add.at(total, codes, unit(vectors))
    sizes = np.bincount(codes)
    pairs = len(codes) ** 2 - int(np.sum(sizes**2))
    if pairs == 0:
        return None
    same = np.sum(sums[0] * sums[1])
    return float((sums[0].sum(0) @ sums[1].sum(0) - same) / pairs)


def _cosines(first: Matrix, second: Matrix) -> Scores:
    return np.sum(unit(first) * unit(second), axis=1)


def _concept_centres(offered: Captioned) -> tuple[list[str], Matrix]:
    """Each concept with the sum of the directions of its captions, whatever their style."""
    names = sorted(set(offered.concepts))
    codes, _ = label_codes(offered.concepts, names)
    centres = np.zeros((len(names), offered.text.shape[1]))
    np.add.at(centres, codes, unit(offered.text))
    return names, centres


def _same_style_hits(images: Matrix, shown: Captioned, offered: Captioned) -> Scores:
    """1 where, among the captions of the picture's own style, one of its concept is nearest."""
    hits = np.empty(len(images))
    for style in set(shown.styles):
        mine, theirs = _of_style(shown, style), _of_style(offered, style)
        asked, candidates = shown.take(mine), offered.take(theirs)
        ranks = retrieval_ranks(images[mine], candidates.text, asked.concepts, candidates.concepts)
        hits[mine] = recall_hits(ranks, 1)
    return hits


def _same_style_chance(shown: Captioned, offered: Captioned) -> float:
    total = 0.0
    for style in set(shown.styles):
        asked = shown.take(_of_style(shown, style))
        candidates = offered.take(_of_style(offered, style))
        right = right_counts(asked.concepts, candidates.concepts)
        total += float(np.sum(right)) / len(candidates.concepts)
    return total / len(shown.styles)


def _of_style(shown: Captioned, style: str) -> Int64[np.ndarray, " k"]:
    return np.flatnonzero(np.array([each == style for each in shown.styles]))
