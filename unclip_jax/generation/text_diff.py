"""Editing a picture by the difference of two captions (paper, section 3.3).

    z_d = (z_t - z_t0) / |z_t - z_t0|,       z_theta = slerp(z_i, |z_i| z_d, theta)

decoded by DDIM from the picture's own x_T. theta = 0 is the picture; the paper goes to 0.25 to 0.5
of the way. The base caption z_t0 may be a description of the picture, "a photo", or left out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np
from jaxtyping import Float

from unclip_jax.errors import UserError
from unclip_jax.generation.editing import Picture, as_table, by_ddim, latents, render
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited
from unclip_jax.generation.slerp import slerp

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options

THETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def text_diff(
    pipeline: "Pipeline",
    picture: Picture,
    to: str,
    *,
    base: Prompt = None,
    thetas: Sequence[float] = THETAS,
    iterations: int = 4,
    **options: Unpack["Options"],
) -> Edited:
    """The picture on its way to a caption, a column for each theta.

    Args:
      to: what the picture should become.
      base: what it is now; None leaves it out.
      thetas: parts of the way to the difference, in [0, 1].

    Raises:
      UserError: the two captions have one embedding.
    """
    if not thetas or not all(0 <= theta <= 1 for theta in thetas):
        raise UserError(f"thetas: must be parts of the way, from 0 to 1, got {list(thetas)}")
    z, x_T = latents(pipeline, [picture], None, iterations, options)
    direction = text_direction(pipeline, to, base)
    way = slerp(z[0], direction * np.linalg.norm(z[0]), thetas)
    count = len(thetas)
    keys = pipeline.key_data(1, 1, 0).repeat(count, axis=0)
    noise = x_T.repeat(count, axis=0)
    options = by_ddim(options)
    stages = render(pipeline, way, [None] * count, keys, options, noise=noise)
    columns = [f"{theta:g}" for theta in thetas]
    return as_table(pipeline, "text-diff", [to], columns, stages, options, {"base": base})


def text_direction(pipeline: "Pipeline", to: str, base: Prompt) -> Float[np.ndarray, " d"]:
    """z_d, of length 1; embeddings are normalised first."""
    texts = [to] if base is None else [to, base]
    z = pipeline.embed_texts(texts).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    difference = z[0] if base is None else z[0] - z[1]
    length = np.linalg.norm(difference)
    if length < 1e-6:
        raise UserError(f"text-diff: {to!r} and {base!r} have the same embedding")
    return difference / length
