"""One prompt at several guidance scales: a row for each scale, a column for each draw.

The embeddings are drawn once, and all pictures of a column start from one noise, so that only the
decoder's scale differs (paper, section 5.3: guidance trades diversity for fidelity).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from unclip_jax.errors import UserError
from unclip_jax.generation.editing import as_table, numbered, render, with_sampling
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options


def guidance_grid(
    pipeline: "Pipeline",
    prompt: str,
    *,
    scales: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    count: int = 4,
    seed: int = 0,
    negative: Prompt = None,
    **options: Unpack["Options"],
) -> Edited:
    """Pictures of a prompt by guidance scale of the decoder and number of the draw."""
    if not scales:
        raise UserError("scales: give at least one guidance scale")
    columns, keys = numbered(count), pipeline.key_data(1, count, seed)
    captions = [prompt] * count
    z = pipeline.draw_embeddings(captions, keys, negative=negative, **options)
    drawn = []
    for scale in scales:
        scaled = with_sampling(options, "decoder", guidance_scale=scale)
        drawn.append(render(pipeline, z, captions, keys, scaled, negative=negative))
    stages = {name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]}
    rows = [f"guidance {scale:g}" for scale in scales]
    return as_table(pipeline, "grid", rows, columns, stages, options, {"prompt": prompt})
