"""Keeping the best of many pictures, by CLIP (DALL-E, arXiv 2102.12092, section 2.6)."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from unclip_jax.errors import UserError
from unclip_jax.generation.prompts import plain
from unclip_jax.generation.results import Generated

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
    """The best k pictures of every prompt, best first.

    Attributes:
      generated: they, as if only they had been drawn.
      scores: cosine of each picture to its prompt, float32 [P, k].
      numbers: which of the prompt's pictures each is, int [P, k].
    """

    generated: Generated
    scores: Float[np.ndarray, "p k"]
    numbers: Int[np.ndarray, "p k"]


def rerank(
    pipeline: "Pipeline", drawn: Generated, keep: int, *, batch_size: int | None = None
) -> Ranked:
    """The `keep` pictures of each prompt that CLIP finds nearest to it.

    Raises:
      UserError: more are to be kept than there are.
    """
    prompts, count = drawn.images.shape[:2]
    if not 1 <= keep <= count:
        raise UserError(f"keep: must be 1 to {count}, the pictures of each prompt, got {keep}")
    flat = drawn.images.reshape(-1, *drawn.images.shape[2:])
    images = _unit(pipeline.embed_images(flat, batch_size)).reshape(prompts, count, -1)
    texts = _unit(pipeline.embed_texts([plain(prompt) for prompt in drawn.prompts], batch_size))
    scores = np.einsum("pnd,pd->pn", images, texts)
    numbers = np.argsort(-scores, axis=1, kind="stable")[:, :keep]
    rows = np.arange(prompts)[:, None]
    best = dataclasses.replace(
        drawn,
        embeddings=drawn.embeddings[rows, numbers],
        stages={name: pictures[rows, numbers] for name, pictures in drawn.stages.items()},
    )
    return Ranked(best, scores[rows, numbers], numbers)


def _unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=1, keepdims=True)
