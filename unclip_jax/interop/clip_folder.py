"""A CLIP as a folder that transformers' CLIPModel, open_clip or OpenAI's clip loads from disk.

OpenAI's package takes a state dict and reads all sizes from it, so its folder is one file; what its
class can't be (other heads than of 64, another activation) is refused.
"""

import os
import pathlib
import sys
from typing import Any

import numpy as np

from unclip_jax.config.schema import ClipModel
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation import TrainedStage
from unclip_jax.interop import clip_configs
from unclip_jax.interop.clip_facts import OPENAI_HEAD_DIM, OPENAI_MARKS
from unclip_jax.interop.clip_weights import TOWERS, export_clip
from unclip_jax.interop.folders import whole_folder
from unclip_jax.interop.tensor_files import MAX_BYTES, check_dtype, save_indexed
from unclip_jax.interop.tokenizer_files import write_json, write_tokenizer
from unclip_jax.models.clip import IMAGE_MEAN, IMAGE_STD
from unclip_jax.models.text_tower import VOCAB_SIZE
from unclip_jax.stages.clip import make_clip

# naming -> (the file by which such a folder is known, stem of the weights)
FILES = {
    "huggingface": ("config.json", "model"),
    "open_clip": ("open_clip_config.json", "open_clip_model"),
    "openai": ("model.safetensors", "model"),
}


def write_clip_folder(
    clip: TrainedStage,
    path: str | os.PathLike[str],
    dialect: str,
    *,
    dtype: str = "float32",
    max_file_bytes: int = MAX_BYTES,
) -> None:
    """Writes a CLIP with config, tokenizer and picture preparation, whole or not at all.

    Args:
      dialect: "huggingface", "open_clip" or "openai".

    Raises:
      UserError: a CLIP without image tower, or one that the library's class can't be.
    """
    check_dtype(dtype)
    if dialect not in FILES:
        raise UserError(f"unknown CLIP naming {dialect!r}{did_you_mean(dialect, FILES)}")
    model: ClipModel = clip.model
    if model.towers != "both":
        raise UserError(f"{clip.source}: this CLIP has no image tower, so it is no CLIP for others")
    if dialect == "huggingface" and model.loss == "sigmoid":
        raise UserError("transformers' CLIPModel has no logit_bias: export this CLIP for open_clip")
    if dialect == "openai":
        _check_openai(model)
        max_file_bytes = sys.maxsize
    file, stem = FILES[dialect]
    naming = "huggingface" if dialect == "huggingface" else "open_clip"
    state = export_clip(clip.params, make_clip(model, "float32"), naming)
    if dialect == "openai":
        state |= _openai_marks(model)
    with whole_folder(pathlib.Path(path), file, "CLIP folder") as fresh:
        save_indexed(state, fresh, stem, dtype=dtype, max_bytes=max_file_bytes)
        if dialect in CONFIGS:
            write_json(fresh / file, CONFIGS[dialect](model))
        if dialect == "huggingface":
            write_tokenizer(fresh, model.context_length)
            write_json(fresh / "preprocessor_config.json", clip_configs.preprocessor_config(model))


def _check_openai(model: ClipModel) -> None:
    """Raises `UserError` for what OpenAI's class has no choice in."""
    fixed = {
        "activation": "quick_gelu",
        "loss": "softmax",
        **{
            f"{tower}_heads": getattr(model, f"{tower}_width") // OPENAI_HEAD_DIM
            for tower in TOWERS
        },
    }
    wrong = [name for name, value in fixed.items() if getattr(model, name) != value]
    wrong += [
        f"{tower}_mlp_dim"
        for tower in TOWERS
        if clip_configs.mlp_dim(model, tower) != 4 * getattr(model, f"{tower}_width")
    ]
    if wrong:
        raise UserError(
            f"OpenAI's CLIP class has no other {wrong[0]} than its own: export this CLIP for "
            "open_clip or huggingface"
        )


def _openai_marks(model: ClipModel) -> dict[str, np.ndarray]:
    """The scalars by which OpenAI's files are known; its loader drops them."""
    marks = (model.image_size, model.context_length, VOCAB_SIZE)
    return dict(zip(OPENAI_MARKS, np.array(marks), strict=True))


def _huggingface(model: ClipModel) -> dict[str, Any]:
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model.embedding_dim,
        "text_config": clip_configs.text_config(model),
        "vision_config": clip_configs.vision_config(model),
    }


def _open_clip(model: ClipModel) -> dict[str, Any]:
    bias = {"init_logit_bias": -10.0} if model.loss == "sigmoid" else {}
    return {
        "model_cfg": {
            "embed_dim": model.embedding_dim,
            "quick_gelu": model.activation == "quick_gelu",
            **bias,
            "vision_cfg": {
                "image_size": model.image_size,
                "patch_size": model.patch_size,
                "width": model.vision_width,
                "layers": model.vision_layers,
                "head_width": model.vision_width // model.vision_heads,
                "mlp_ratio": clip_configs.mlp_dim(model, "vision") / model.vision_width,
            },
            "text_cfg": {
                "context_length": model.context_length,
                "vocab_size": VOCAB_SIZE,
                "width": model.text_width,
                "heads": model.text_heads,
                "layers": model.text_layers,
                "mlp_ratio": clip_configs.mlp_dim(model, "text") / model.text_width,
            },
        },
        "preprocess_cfg": {"mean": list(IMAGE_MEAN), "std": list(IMAGE_STD)},
    }


CONFIGS = {"huggingface": _huggingface, "open_clip": _open_clip}
