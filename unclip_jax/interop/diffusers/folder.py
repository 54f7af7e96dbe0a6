"""Whole unCLIP folders of diffusers, to read and to write; Kandinsky 2's priors, to read.

The numbers are those of the weights, bit for bit, in both directions. What only we know (training,
samplers' steps) is not in such a folder: a stage that is read samples with karlo's numbers.

diffusers moved UnCLIPTextProjModel in 0.38 and can't find it by the name that its own folders give.
`text_proj` is written as ["unclip", …], which 0.37 reads; newer ones are told where that is:

    from diffusers import pipelines; from diffusers.pipelines.deprecated import unclip
    pipelines.unclip = unclip
    UnCLIPPipeline.from_pretrained(folder)
"""

import os
import pathlib
from typing import Any

from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation import Cascade, TrainedStage, compose
from unclip_jax.interop.diffusers import components
from unclip_jax.interop.folders import whole_folder
from unclip_jax.interop.foreign import read_json
from unclip_jax.interop.tensor_files import MAX_BYTES, check_dtype
from unclip_jax.interop.tokenizer_files import write_json, write_tokenizer

INDEX = "model_index.json"
WRITTEN_FOR = "0.37.1"  # the last diffusers that loads such a folder without help
LAYOUTS = {"text-to-image": "UnCLIPPipeline", "variation": "UnCLIPImageVariationPipeline"}
# A CLIP and karlo's prior of other sizes. Their decoder, a latent U-Net, has no counterpart here.
PRIORS = ("KandinskyPriorPipeline", "KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline")


def read_folder(
    path: str | os.PathLike[str], image_encoder: str | os.PathLike[str] | None = None
) -> Cascade:
    """The cascade in a folder of UnCLIPPipeline or UnCLIPImageVariationPipeline, or of `PRIORS`.

    Args:
      image_encoder: a folder with CLIP's image tower (or with an image_encoder/ in it), for a
        folder that has none; without it the cascade draws, and can't read pictures.

    Raises:
      UserError: no such folder, an option that we don't have, or missing or altered weights.
    """
    folder = pathlib.Path(path)
    index = read_json(folder / INDEX)
    kind, known = index.get("_class_name"), (*LAYOUTS.values(), *PRIORS)
    if kind not in known:
        raise UserError(f"{folder / INDEX} is of {kind!r}, not one of {', '.join(known)}")
    vision = folder / "image_encoder"
    if image_encoder is not None:
        vision = pathlib.Path(image_encoder)
        vision = vision / "image_encoder" if (vision / "image_encoder").is_dir() else vision
    origin = {"format": "diffusers", "diffusers": index.get("_diffusers_version")}
    clip = components.read_clip(
        folder / "text_encoder", vision if vision.is_dir() else None, origin
    )
    if kind in PRIORS:
        return compose([clip, components.read_prior(folder, clip, origin, "scheduler")])
    stages = [clip]
    if "prior" in index:
        stages.append(components.read_prior(folder, clip, origin))
    decoder = components.read_decoder(folder, clip, origin)
    stages += [decoder, components.read_upsampler(folder, decoder.model.image_size, origin)]
    return compose(stages)


def write_folder(
    cascade: Cascade,
    path: str | os.PathLike[str],
    *,
    layout: str = "text-to-image",
    dtype: str = "float32",
    max_file_bytes: int = MAX_BYTES,
) -> None:
    """Writes a cascade as a folder of diffusers, whole or not at all.

    Args:
      layout: see `LAYOUTS`.
      dtype: "float32" or "bfloat16".

    Raises:
      UserError: stages that are missing, or that diffusers' networks can't be.
    """
    check_dtype(dtype)
    if layout not in LAYOUTS:
        raise UserError(f"no layout {layout!r}{did_you_mean(layout, LAYOUTS)}")
    if len(cascade.upsamplers) > 1:
        raise UserError("a diffusers folder holds one upsampler: leave the others out")
    variation = layout == "variation"
    kinds = {"clip": cascade.clip, "prior": cascade.prior, "decoder": cascade.decoder}
    found: dict[str, TrainedStage | None] = {
        **{k: v for k, v in kinds.items() if not (variation and k == "prior")},
        "upsampler": next(iter(cascade.upsamplers), None),
    }
    missing = [name for name, stage in found.items() if stage is None]
    if missing:
        raise UserError(f"{LAYOUTS[layout]} needs a {missing[0]}, which was not given")
    with whole_folder(pathlib.Path(path), INDEX, "diffusers folder") as fresh:
        writer = components.Writer(fresh, dtype, max_file_bytes)
        _fill(writer, {k: v for k, v in found.items() if v is not None}, variation)
        write_json(fresh / INDEX, _index(layout, writer.written))


def _fill(writer: components.Writer, stages: dict[str, TrainedStage], variation: bool) -> None:
    clip = stages["clip"]
    if variation and clip.model.towers != "both":
        raise UserError("UnCLIPImageVariationPipeline needs a CLIP with its image tower")
    write_tokenizer(writer.folder / "tokenizer", clip.model.context_length)
    writer.written["tokenizer"] = ["transformers", "CLIPTokenizer"]
    components.write_text_encoder(writer, clip)
    if variation:
        components.write_image_encoder(writer, clip)
    else:
        components.write_prior(writer, stages["prior"], clip)
    components.write_decoder(writer, stages["decoder"], clip)
    components.write_upsampler(writer, stages["upsampler"])


def _index(layout: str, written: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "_class_name": LAYOUTS[layout],
        "_diffusers_version": WRITTEN_FOR,
        **dict(sorted(written.items())),
    }
