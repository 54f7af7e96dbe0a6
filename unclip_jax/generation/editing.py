"""What the editing operations share: fitting pictures, settings of DDIM, the table they return."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from unclip_jax.errors import UserError
from unclip_jax.generation import settings
from unclip_jax.generation.prompts import Prompt
from unclip_jax.generation.results import Edited, Stages

if TYPE_CHECKING:
    from unclip_jax.generation.pipeline import Pipeline
    from unclip_jax.generation.runner import Keys, Options

Picture = UInt8[np.ndarray, "h w 3"]


def fit(picture: Picture, height: int, width: int | None = None) -> Picture:
    """The middle of a picture, cropped to the wanted proportions and resized (bicubic)."""
    check_picture(picture)
    width = height if width is None else width
    scale = min(picture.shape[0] / height, picture.shape[1] / width)
    crop_height, crop_width = round(height * scale), round(width * scale)
    top, left = (picture.shape[0] - crop_height) // 2, (picture.shape[1] - crop_width) // 2
    cropped = picture[top : top + crop_height, left : left + crop_width]
    return resize(cropped, height, width)


def resize(picture: Picture, height: int, width: int) -> Picture:
    """A picture of another size; one of that size comes back as it is."""
    if picture.shape[:2] == (height, width):
        return picture
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def check_picture(picture: Picture) -> None:
    """Raises `UserError` unless it is a picture as operations take it."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UserError(
            f"a picture is uint8 [height, width, 3], got {picture.dtype} {picture.shape}"
        )


def with_sampling(options: "Options", stage: str, **changes: Any) -> "Options":
    """Options with some settings of a stage put over the caller's."""
    sampling = dict(options.get("sampling") or {})
    sampling[stage] = {**sampling.get(stage, {}), **changes}
    return {**options, "sampling": sampling}


def by_ddim(options: "Options", eta: float = 0.0) -> "Options":
    """Options under which the decoder walks as its inversion does: DDIM, nothing clipped."""
    return with_sampling(options, "decoder", sampler="ddim", eta=eta, clip_range=None)


def latents(
    pipeline: "Pipeline",
    pictures: Sequence[Picture],
    caption: Prompt,
    iterations: int,
    options: "Options",
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n s s 3"]]:
    """The bipartite latents (z_i, x_T) of pictures (paper, section 3)."""
    z = embeddings(pipeline, pictures, options)
    small = np.stack([fit(picture, pipeline.decoder_size) for picture in pictures])
    captions = [caption] * len(pictures)
    return z, pipeline.invert(small, z, captions, iterations=iterations, **by_ddim(options))


def embeddings(
    pipeline: "Pipeline", pictures: Sequence[Picture], options: "Options"
) -> Float[np.ndarray, "n d"]:
    """CLIP's image embeddings of pictures of any sizes; they are cropped to squares."""
    for picture in pictures:
        check_picture(picture)
    size = options.get("batch_size")
    return np.concatenate([pipeline.embed_images(p[None], size) for p in pictures])


def render(
    pipeline: "Pipeline",
    z: Float[np.ndarray, "n d"] | None,
    captions: Sequence[Prompt],
    keys: "Keys",
    options: "Options",
    **given: Any,
) -> Stages:
    """{stage name: pictures [N, S, S, 3]}: the decoder, with what it is given, and upsamplers."""
    pictures = pipeline.decode(z, captions, keys, **given, **options)
    return pipeline.upsample_all(pictures, keys, **options)


def as_table(
    pipeline: "Pipeline",
    operation: str,
    rows: Sequence[str],
    columns: Sequence[str],
    stages: Stages,
    options: "Options",
    facts: Mapping[str, object] | None = None,
) -> Edited:
    """Pictures [R * C, …], row by row, as the result of an operation."""
    shape = len(rows), len(columns)
    return Edited(
        operation=operation,
        rows=tuple(rows),
        columns=tuple(columns),
        stages={name: p.reshape(*shape, *p.shape[1:]) for name, p in stages.items()},
        sampling=settings.resolve(pipeline.cascade, options.get("sampling")),
        facts=facts or {},
    )


def numbered(count: int) -> list[str]:
    """Column labels of several draws."""
    if count < 1:
        raise UserError(f"nothing to draw: {count} pictures")
    return [str(number) for number in range(count)]
