"""What both sides of `sampling.py` draw with: one cascade of karlo's form with random weights.

"karlo" is its true size, 3.3 B parameters; "small" is what two CPU cores bear: a prior of 4 layers
of 256, a decoder of 32 px with channels 64 x (1, 2, 3, 4), and an upsampler from 32 to 64 px with
its own last step; "tiny" shows that everything fits together.

It is written in diffusers' layout by our export, and each side reads that folder: the weights are
the same, and so are steps and guidance. How long an operation takes does not depend on the weights.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.config import RunConfig, from_mapping, load_config
from unclip_jax.core.hashing import weights_hash
from unclip_jax.generation import TrainedStage, compose
from unclip_jax.interop.diffusers import write_folder

SIZES = ("tiny", "small", "karlo")
STEPS = {"prior": 25, "decoder": 25, "upsampler": 7}  # karlo's, as is the guidance
GUIDANCE = {"prior": 4.0, "decoder": 8.0}
PROMPT = "a red heart on a blue plate"

CLIP = {
    **{"image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 1},
    **{"vision_heads": 1, "text_width": 128, "text_layers": 2, "text_heads": 2},
    **{"embedding_dim": 128, "activation": "quick_gelu"},
}
PRIOR = {"null_text": "empty", "embedding_scale": "whiten"}
DECODER = {"null_text": "empty", "embedding_scale": "raw", "image_size": 32}
UPSAMPLER = {"low_size": 32, "image_size": 64, "last_step": "own", "crop_fraction": 0.5}
UNETS = {
    "tiny": {"channels": 32, "multipliers": (1, 2), "depth": 1},
    "small": {"channels": 64, "multipliers": (1, 2, 3, 4), "depth": 2},
}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "clip": CLIP,
        "prior": PRIOR | {"width": 64, "layers": 1, "heads": 1},
        "decoder": DECODER
        | UNETS["tiny"]
        | {"attention_resolutions": (16,), "context_width": 64, "head_channels": 32},
        "upsampler": UPSAMPLER | UNETS["tiny"] | {"scale_shift": False},
    },
    "small": {
        "clip": CLIP,
        "prior": PRIOR | {"width": 256, "layers": 4, "heads": 4},
        "decoder": DECODER
        | UNETS["small"]
        | {"attention_resolutions": (16, 8, 4), "context_width": 384},
        "upsampler": UPSAMPLER | UNETS["small"] | {"scale_shift": False},
    },
}


def write(size: str, folder: pathlib.Path) -> None:
    """Writes the cascade of a size as a folder of diffusers."""
    clip = _stage("clip", size)
    parts = [clip, *(_stage(kind, size, clip) for kind in ("prior", "decoder", "upsampler"))]
    write_folder(compose(parts), folder)


def _config(kind: str, size: str) -> RunConfig:
    if size == "karlo":
        return load_config(f"{kind}:karlo")
    return from_mapping(
        {
            "stage": kind,
            "model": MODELS[size][kind],
            "data": {"train": "data/*.tar"},
            "train": {"batch_size": 1, "duration": "1 steps"},
            "clip": {"path": "clip"} if kind in GUIDANCE else {},
            "diffusion": {
                "prediction": "x0" if kind == "prior" else "epsilon",
                "learned_variance": kind == "decoder",
            },
            "sampling": {"sampler": "ddpm", "steps": 1, "guidance_scale": GUIDANCE.get(kind, 1.0)},
        }
    )


def _stage(kind: str, size: str, clip: TrainedStage | None = None) -> TrainedStage:
    """A stage with random weights, none of them zero."""
    config = _config(kind, size)
    conditioned = clip is not None and kind in GUIDANCE
    init = stages.build(config, clip.model if clip is not None and conditioned else None).init
    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.float32(0.05) * generator.standard_normal(leaf.shape, np.float32)

    params = jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))
    width = clip.model.embedding_dim if clip is not None else 0
    moments = {"mean": np.zeros(width, np.float32), "std": np.ones(width, np.float32)}
    return TrainedStage(
        config=config,
        params=params,
        step=0,
        weights_sha256=weights_hash(params),
        source=kind,
        clip_sha256=clip.weights_sha256 if clip is not None and conditioned else None,
        statistics=moments if kind == "prior" else None,
    )
