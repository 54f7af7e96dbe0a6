"""What the prior is good for (paper, section 5.1 and figure 8): one decoder, three signals.

caption          the caption alone, no embedding (which the decoder knows from dropping it)
text embedding   the caption, and CLIP's text embedding in the place of an image embedding
prior            the caption, and an image embedding that the prior drew
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from unclip_jax.generation.editing import as_table, render
from unclip_jax.generation.prompts import plain
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options

SIGNALS = ("caption", "text embedding", "prior")


def ablate(
    pipeline: "Pipeline", prompts: Sequence[str], *, seed: int = 0, **options: Unpack["Options"]
) -> Edited:
    """A row for each prompt and a column for each signal, all of a row from one noise."""
    keys = pipeline.key_data(len(prompts), 1, seed)
    text = pipeline.embed_texts([plain(prompt) for prompt in prompts], options.get("batch_size"))
    drawn = [
        render(pipeline, z, prompts, keys, options)
        for z in (None, text, pipeline.draw_embeddings(prompts, keys, **options))
    ]
    stages = {
        name: np.stack([d[name] for d in drawn], axis=1).reshape(-1, *drawn[0][name].shape[1:])
        for name in drawn[0]
    }
    return as_table(pipeline, "ablate", prompts, SIGNALS, stages, options)
