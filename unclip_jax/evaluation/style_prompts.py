"""What a style looks like in text, to ask a picture which style it is in.

Either the embedding of a prompt for each style ("noto style"), or, without such, the average of all
captions in the style. The average leaves out the concept that is asked about: else a caption would
lend its own concept to its own style's prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.evaluation.retrieval import recall_hits, retrieval_ranks
from unclip_jax.evaluation.vectors import as_matrix, label_codes, unit


@dataclass(frozen=True)
class StylePrompts:
    """An embedding for each style, [s, d], and the share of each concept in it."""

    styles: tuple[str, ...]
    prompts: Float64[np.ndarray, "s d"]
    own: Mapping[str, Float64[np.ndarray, "s d"]]

    @staticmethod
    def given(embeddings: Mapping[str, np.ndarray], styles: Sequence[str]) -> "StylePrompts":
        """From the text embedding [d] of a prompt for each style that `styles` names.

        Raises:
          UserError: a style without a prompt.
        """
        for style in sorted(set(styles) - set(embeddings)):
            raise UserError(f"no prompt for the style {style!r}{did_you_mean(style, embeddings)}")
        matrix = as_matrix("style_embeddings", np.stack(list(embeddings.values())))
        return StylePrompts(tuple(embeddings), matrix, {})

    @staticmethod
    def averaged(
        text: Float64[np.ndarray, "n d"], styles: Sequence[str], concepts: Sequence[str]
    ) -> "StylePrompts | None":
        """From captions; None if there are not two styles, each with two concepts."""
        names = sorted(set(styles))
        known: dict[str, set[str]] = {style: set() for style in names}
        for style, concept in zip(styles, concepts, strict=True):
            known[style].add(concept)
        if len(names) < 2 or min(map(len, known.values())) < 2:
            return None
        codes, _ = label_codes(styles, names)
        own = {concept: np.zeros((len(names), text.shape[1])) for concept in set(concepts)}
        for vector, code, concept in zip(unit(text), codes, concepts, strict=True):
            own[concept][code] += vector
        return StylePrompts(tuple(names), np.sum(list(own.values()), axis=0), own)

    def hits(
        self,
        images: Float64[np.ndarray, "n d"],
        styles: Sequence[str],
        concepts: Sequence[str],
    ) -> Float64[np.ndarray, " n"]:
        """1 where the prompt of the picture's own style is the nearest one, else 0."""
        hits = np.empty(len(images))
        members: dict[str, list[int]] = {}
        for row, concept in enumerate(concepts):
            members.setdefault(concept, []).append(row)
        for concept, rows in members.items():
            prompts = self.prompts - self.own.get(concept, 0.0)
            wanted = [styles[row] for row in rows]
            ranks = retrieval_ranks(images[rows], prompts, wanted, self.styles)
            hits[rows] = recall_hits(ranks, 1)
        return hits
