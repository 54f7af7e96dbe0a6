"""Image to image (SDEdit, Meng et al. 2022): noise on a picture, then the way back to a prompt.

The part of the process that is walked, `strength`, decides what survives: large shapes and colours
at 0.5, hardly anything near 1. All steps of the sampler are spent on that part.
"""

from typing import TYPE_CHECKING, Unpack

from unclip_jax.generation.editing import Picture, as_table, fit, numbered, render
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options


def image_to_image(
    pipeline: "Pipeline",
    picture: Picture,
    prompt: str,
    *,
    strength: float = 0.6,
    count: int = 4,
    seed: int = 0,
    negative: Prompt = None,
    **options: Unpack["Options"],
) -> Edited:
    """Pictures of the prompt that start from a picture; strength in (0, 1]."""
    columns, keys = numbered(count), pipeline.key_data(1, count, seed)
    captions = [prompt] * count
    z = pipeline.draw_embeddings(captions, keys, negative=negative, **options)
    small = fit(picture, pipeline.decoder_size)[None].repeat(count, axis=0)
    stages = render(
        pipeline, z, captions, keys, options,
        picture=small, strength=strength, negative=negative,
    )  # fmt: skip
    facts = {"strength": strength, "prompt": prompt}
    return as_table(pipeline, "img2img", [prompt], columns, stages, options, facts)
