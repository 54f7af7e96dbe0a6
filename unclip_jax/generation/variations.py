"""Variations of a picture (paper, section 3.1): what its embedding keeps stays, the rest is free.

With inversion, the picture becomes the bipartite latent (z_i, x_T), and DDIM with eta > 0 walks
back: eta = 0 gives the picture itself, larger eta more freedom. Without, x_T is drawn anew.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from unclip_jax.generation.editing import (
    Picture,
    as_table,
    by_ddim,
    embeddings,
    latents,
    numbered,
    render,
)
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options


def variations(
    pipeline: "Pipeline",
    picture: Picture,
    *,
    count: int = 4,
    etas: Sequence[float] = (0.5, 1.0),
    seed: int = 0,
    caption: Prompt = None,
    iterations: int = 4,
    **options: Unpack["Options"],
) -> Edited:
    """A row of variations for each eta, by inversion.

    Args:
      etas: in [0, 1], the share of DDPM's noise.
      caption: of the picture; None decodes from the embedding without one.
      iterations: of the inversion, see `Pipeline.invert`.
    """
    columns, keys = numbered(count), pipeline.key_data(1, count, seed)
    z, noise = latents(pipeline, [picture], caption, iterations, options)
    z, noise = z.repeat(count, axis=0), noise.repeat(count, axis=0)
    captions = [caption] * count
    drawn = [
        render(pipeline, z, captions, keys, by_ddim(options, eta), noise=noise) for eta in etas
    ]
    stages = {name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]}
    rows = [f"eta {eta:g}" for eta in etas]
    return as_table(pipeline, "variations", rows, columns, stages, by_ddim(options))


def variations_of_embedding(
    pipeline: "Pipeline",
    picture: Picture,
    *,
    count: int = 4,
    seed: int = 0,
    caption: Prompt = None,
    **options: Unpack["Options"],
) -> Edited:
    """Pictures drawn from the embedding alone, each from noise of its own."""
    columns, keys = numbered(count), pipeline.key_data(1, count, seed)
    z = embeddings(pipeline, [picture], options).repeat(count, axis=0)
    stages = render(pipeline, z, [caption] * count, keys, options)
    return as_table(pipeline, "variations", ["embedding"], columns, stages, options)
