"""Interpolations between two pictures or two prompts (paper, section 3.2).

z runs along the great circle between the two embeddings. x_T runs likewise between the two
inversions, so that the ends are the two pictures themselves; or it is one draw for all, which gives
ways between the contents of the pictures, as many as there are draws.
"""

from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np

from unclip_jax.errors import UserError
from unclip_jax.generation.editing import (
    Picture,
    as_table,
    by_ddim,
    embeddings,
    latents,
    render,
)
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited
from unclip_jax.generation.slerp import slerp

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Options


def interpolate(
    pipeline: "Pipeline",
    first: Picture,
    second: Picture,
    *,
    steps: int = 7,
    noise: Literal["inverted", "fixed"] = "inverted",
    rows: int = 1,
    seed: int = 0,
    iterations: int = 4,
    **options: Unpack["Options"],
) -> Edited:
    """Pictures from the first to the second, without caption.

    Args:
      steps: how many, both ends included.
      noise: "inverted": x_T runs between those of the pictures. "fixed": each row has one draw.
      rows: how many draws, with "fixed".
    """
    if noise == "inverted":
        rows = 1
        z, x_T = latents(pipeline, [first, second], None, iterations, options)
        given = {"noise": slerp(x_T[0], x_T[1], fractions(steps))}
    elif noise == "fixed":
        z, given = embeddings(pipeline, [first, second], options), {}
    else:
        raise UserError(f"noise: must be 'inverted' or 'fixed', got {noise!r}")
    way = np.tile(slerp(z[0], z[1], fractions(steps)), (rows, 1))
    keys = pipeline.key_data(1, rows, seed).repeat(steps, axis=0)
    options = by_ddim(options)
    stages = render(pipeline, way, [None] * len(way), keys, options, **given)
    labels = ["inverted noise"] if noise == "inverted" else [f"noise {i}" for i in range(rows)]
    return as_table(pipeline, "interpolate", labels, _columns(steps), stages, options)


def interpolate_prompts(
    pipeline: "Pipeline",
    first: str,
    second: str,
    *,
    steps: int = 7,
    rows: int = 1,
    seed: int = 0,
    negative: Prompt = None,
    **options: Unpack["Options"],
) -> Edited:
    """Pictures between two prompts: between embeddings that the prior draws for them.

    Each row has one key, for the prior's draws of both prompts and for x_T.
    """
    keys = pipeline.key_data(1, rows, seed)
    captions = [first] * rows + [second] * rows
    z = pipeline.draw_embeddings(
        captions, np.concatenate([keys, keys]), negative=negative, **options
    )
    ways = [slerp(a, b, fractions(steps)) for a, b in zip(z[:rows], z[rows:], strict=True)]
    way, keys = np.concatenate(ways), keys.repeat(steps, axis=0)
    options = by_ddim(options)
    stages = render(pipeline, way, [None] * len(way), keys, options, negative=negative)
    labels = [f"draw {i}" for i in range(rows)]
    return as_table(pipeline, "interpolate", labels, _columns(steps), stages, options)


def fractions(steps: int) -> list[float]:
    """Evenly from 0 to 1."""
    if steps < 2:
        raise UserError(f"steps: an interpolation has at least its two ends, got {steps}")
    return [i / (steps - 1) for i in range(steps)]


def _columns(steps: int) -> list[str]:
    return [f"{fraction:.2f}" for fraction in fractions(steps)]
