"""Filling in a part of a picture, and drawing beyond its edges.

Two ways to keep the rest. A decoder trained with `inpainting` is shown the known part at every step
("trained"); any other is led by putting it back after every step ("repaint", see
`diffusion.repaint`). Upsamplers always do the latter. In the end every known pixel of a picture
that has the size of the last stage is what it was, bit for bit.

Outpainting is the same on a larger canvas: the decoder sees it in overlapping tiles that agree (see
`stages.tiles`), upsamplers, which have no attention, as a whole.
"""

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, Unpack

import numpy as np
from jaxtyping import Bool

from unclip_jax.diffusion import Known
from unclip_jax.errors import UserError
from unclip_jax.generation.editing import (
    Picture,
    as_table,
    check_picture,
    embeddings,
    fit,
    numbered,
    resize,
)
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited
from unclip_jax.generation.runner import Options
from unclip_jax.stages.sampling import Resampling

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline

Method = Literal["auto", "trained", "repaint"]
Mask = Bool[np.ndarray, "h w"]
PUT_BACK = Resampling(jump=1, resamples=1)


class How(Options, total=False):
    """How to fill in, beside how to run.

    count, seed: how many pictures are drawn (4), and their keys (0).
    method: see the module; "auto", the default, is "trained" if the decoder can.
    resampling: of "repaint".
    negative: what prior and decoder are guided away from.
    """

    count: int
    seed: int
    method: Method
    resampling: Resampling | None
    negative: Prompt


class Margins(NamedTuple):
    """Pixels of the last stage to add on each side."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


def inpaint(
    pipeline: "Pipeline",
    picture: Picture,
    mask: Mask,
    prompt: Prompt = None,
    **how: Unpack[How],
) -> Edited:
    """Pictures that equal the given one outside of the mask.

    Args:
      picture: cropped to a square and resized to the size of the last stage if it has another.
      mask: True where the picture is to be drawn; of its size.
      prompt: what the whole picture shows; None takes the picture's own embedding.
      how: see `How`.
    """
    check_picture(picture)
    if mask.shape != picture.shape[:2]:
        raise UserError(f"mask: is {mask.shape}, but the picture is {picture.shape[:2]}")
    if not mask.any() or mask.all():
        raise UserError("mask: must leave a part of the picture, and miss a part")
    size = pipeline.final_size
    missing = fit(mask[..., None].repeat(3, axis=2) * np.uint8(255), size)[..., 0] > 0
    return _fill(pipeline, "inpaint", fit(picture, size), missing, prompt, **how)


def outpaint(
    pipeline: "Pipeline",
    picture: Picture,
    margins: Margins,
    prompt: Prompt = None,
    **how: Unpack[How],
) -> Edited:
    """The picture on a larger canvas, its surroundings drawn.

    Args:
      picture: cropped to a square and resized to the size of the last stage if it has another.
      margins: what is added; multiples of `canvas_step(pipeline)`.
      prompt: as for `inpaint`.
      how: see `How`.
    """
    step, size = canvas_step(pipeline), pipeline.final_size
    if min(margins) < 0 or not any(margins):
        raise UserError(f"margins: must not be negative, and one must be positive: {margins}")
    if any(margin % step for margin in margins):
        raise UserError(f"margins: must be multiples of {step} px for this cascade: {margins}")
    canvas = np.zeros((size + margins.top + margins.bottom, size + margins.left + margins.right, 3))
    missing = np.ones(canvas.shape[:2], bool)
    inside = np.s_[margins.top : margins.top + size, margins.left : margins.left + size]
    canvas = canvas.astype(np.uint8)
    canvas[inside], missing[inside] = fit(picture, size), False
    return _fill(pipeline, "outpaint", canvas, missing, prompt, **how)


def canvas_step(pipeline: "Pipeline") -> int:
    """What the sides of a canvas must be multiples of, so that every stage can halve them."""
    steps = []
    for name, size in pipeline.sizes.items():
        levels = pipeline.cascade.named()[name].model.multipliers
        halvings = 0 if name == "decoder" else len(levels) - 1  # the decoder works in tiles
        steps.append(pipeline.final_size // size * 2**halvings)
    return math.lcm(*steps)


def _fill(
    pipeline: "Pipeline",
    operation: str,
    canvas: Picture,
    missing: Mask,
    prompt: Prompt,
    *,
    count: int = 4,
    seed: int = 0,
    method: Method = "auto",
    resampling: Resampling | None = None,
    negative: Prompt = None,
    **options: Unpack[Options],
) -> Edited:
    shown = _is_shown(pipeline, method)
    columns = numbered(count)
    keys, captions = pipeline.key_data(1, count, seed), [prompt] * count
    if prompt is None:
        z = embeddings(pipeline, [_without_hole(canvas, missing)], options).repeat(count, axis=0)
    else:
        z = pipeline.draw_embeddings(captions, keys, negative=negative, **options)
    known = {name: _known(canvas, missing, pipeline, name, count) for name in pipeline.sizes}
    pictures = pipeline.decode(
        z, captions, keys, negative=negative, known=known["decoder"], shown=shown,
        resampling=PUT_BACK if shown else resampling, **options,
    )  # fmt: skip
    stages = {"decoder": pictures}
    for name in pipeline.upsamplers:
        pictures = stages[name] = pipeline.upsample(
            name, pictures, keys, known=known[name], resampling=PUT_BACK, canvas=True, **options
        )
    facts = {"prompt": prompt, "method": "trained" if shown else "repaint"}
    return as_table(pipeline, operation, [prompt or ""], columns, stages, options, facts)


def _is_shown(pipeline: "Pipeline", method: Method) -> bool:
    decoder = pipeline.cascade.decoder
    able = decoder is not None and decoder.model.inpainting
    if method not in ("auto", "trained", "repaint"):
        raise UserError(f"method: must be auto, trained or repaint, got {method!r}")
    if method == "trained" and not able:
        raise UserError(
            "method: this decoder was not trained to inpaint (config.model.inpainting): use repaint"
        )
    return able and method != "repaint"


def _known(canvas: Picture, missing: Mask, pipeline: "Pipeline", name: str, count: int) -> Known:
    """Canvas and mask at the size of a stage. A pixel that covers any missing one is missing."""
    factor = pipeline.final_size // pipeline.sizes[name]
    height, width = canvas.shape[0] // factor, canvas.shape[1] // factor
    blocks = missing.reshape(height, factor, width, factor).max(axis=(1, 3))
    mask = blocks.astype(np.float32)[None, ..., None]
    picture = resize(_without_hole(canvas, missing), height, width)[None]
    return Known(picture.repeat(count, axis=0), mask.repeat(count, axis=0))


def _without_hole(canvas: Picture, missing: Mask) -> Picture:
    """The mean colour of what is known in the place of what is not."""
    mean = canvas[~missing].mean(axis=0).round().astype(np.uint8)
    return np.where(missing[..., None], mean, canvas)
