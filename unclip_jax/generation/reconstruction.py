"""What an embedding holds: pictures from few of its principal components (paper, figure 7)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from unclip_jax.generation.editing import Picture, as_table, by_ddim, embeddings, render
from unclip_jax.generation.pca import PrincipalComponents
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options

PAPER_COMPONENTS = (20, 30, 40, 80, 120, 160, 200, 320)


def reconstruct(
    pipeline: "Pipeline",
    pictures: Sequence[Picture],
    basis: PrincipalComponents,
    *,
    components: Sequence[int] = PAPER_COMPONENTS,
    seed: int = 0,
    **options: Unpack["Options"],
) -> Edited:
    """A row for each picture, a column for each number of components, then the whole embedding.

    All are decoded by DDIM from one noise, without caption.
    """
    z = embeddings(pipeline, pictures, options)
    versions = np.stack([*(basis.truncate(z, kept) for kept in components), z], axis=1)
    columns = [*map(str, components), "all"]
    flat = versions.reshape(-1, z.shape[1])
    keys = pipeline.key_data(1, 1, seed).repeat(len(flat), axis=0)
    options = by_ddim(options)
    stages = render(pipeline, flat, [None] * len(flat), keys, options)
    rows = [f"picture {i}" for i in range(len(pictures))]
    facts = {"explained_variance": {str(k): basis.explained(k) for k in components}}
    return as_table(pipeline, "reconstruct", rows, columns, stages, options, facts)
