"""Typographic attacks (paper, section 3.1 and figure 6): is a picture what is written on it?

CLIP reads: an apple with "iPod" on it may be classified as an iPod. The paper decodes such
embeddings and finds apples. The probe gives CLIP's zero-shot probabilities of each picture over
some labels, and variations decoded from its embedding alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np
from jaxtyping import Float

from unclip_jax.errors import UserError
from unclip_jax.generation.editing import Picture, as_table, embeddings, numbered, render
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options


def typographic_probe(
    pipeline: "Pipeline",
    pictures: Mapping[str, Picture],
    labels: Sequence[str],
    *,
    template: str = "{}",
    count: int = 4,
    seed: int = 0,
    **options: Unpack["Options"],
) -> Edited:
    """A row of variations for each picture; `facts` has its probabilities.

    Args:
      pictures: {name of the row: picture}, such as the plain one and some with a word on it.
      labels: what CLIP chooses from.
      template: what CLIP reads for a label, "{}" standing for it.
    """
    if not pictures or len(labels) < 2:
        raise UserError("a typographic probe needs a picture, and two labels to choose from")
    if "{}" not in template:
        raise UserError(f"template: must have {{}} where the label goes, got {template!r}")
    z = embeddings(pipeline, list(pictures.values()), options)
    texts = pipeline.embed_texts([template.format(label) for label in labels])
    scale = float(np.exp(np.asarray(pipeline.cascade.named()["clip"].params["logit_scale"])))
    probabilities = zero_shot(z, texts, scale)
    columns = numbered(count)
    keys = np.tile(pipeline.key_data(1, count, seed), (len(z), 1))
    flat = z.repeat(count, axis=0)
    stages = render(pipeline, flat, [None] * len(flat), keys, options)
    facts = {
        "probabilities": {
            name: dict(zip(labels, map(float, row), strict=True))
            for name, row in zip(pictures, probabilities, strict=True)
        }
    }
    return as_table(pipeline, "typographic", list(pictures), columns, stages, options, facts)


def zero_shot(
    images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "k d"], scale: float
) -> Float[np.ndarray, "n k"]:
    """CLIP's probabilities of texts for images: the softmax of scaled cosines."""
    unit_images = images / np.linalg.norm(images, axis=1, keepdims=True)
    unit_texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    logits = scale * (unit_images @ unit_texts.T)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
