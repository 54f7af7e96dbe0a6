"""karlo-v1-alpha's own checkpoints: the four files that Kakao Brain released.

    prior-ckpt-step=01000000-of-01000000.ckpt      decoder-ckpt-step=01000000-of-01000000.ckpt
    improved-sr-ckpt-step=1.2M.ckpt                ViT-L-14_stats.th      mean and std [D]

beside OpenAI's ViT-L/14. Sizes follow from the tensors, but for those that no shape tells
(`Untold`), whose defaults are the released model's.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unclip_jax.errors import UserError
from unclip_jax.generation import Cascade, TrainedStage, compose
from unclip_jax.interop import karlo_names, tensor_map
from unclip_jax.interop.diffusers import names, sampling
from unclip_jax.interop.diffusers.components import read_unet
from unclip_jax.interop.foreign import read_state_dict
from unclip_jax.interop.imported import file_facts, imported_config, imported_stage
from unclip_jax.interop.karlo_names import Ladder, State
from unclip_jax.interop.tensor_map import Shapes
from unclip_jax.stages.upsampler import LAST_STEP

PATTERNS = {
    "prior": "prior-ckpt*",
    "decoder": "decoder-ckpt*",
    "upsampler": "improved-sr-ckpt*",
    "statistics": "*_stats.*",
}
CLIP_RANGE = 10.0  # of the prior's whitened embeddings; diffusers has 5
_STEP = re.compile(r"step=([\d.]*\d)(M?)")


@dataclass(frozen=True)
class Untold:
    """Sizes that the tensors do not tell."""

    image_size: int = 64
    large_size: int = 256
    head_dim: int = 64
    norm_groups: int = 32


def read_karlo(
    path: str | os.PathLike[str], clip: TrainedStage, untold: Untold | None = None
) -> Cascade:
    """The cascade of a folder with karlo's files.

    Args:
      clip: OpenAI's ViT-L/14, which karlo was trained against.

    Raises:
      UserError: a file that is missing or holds something else.
    """
    folder, untold = pathlib.Path(path), untold or Untold()
    files = {name: _find(folder, pattern) for name, pattern in PATTERNS.items()}
    prior = _prior(files["prior"], files["statistics"], clip, untold)
    decoder = _decoder(files["decoder"], clip, untold)
    return compose([clip, prior, decoder, _upsampler(files["upsampler"], untold)])


def _prior(
    path: pathlib.Path, statistics: pathlib.Path, clip: TrainedStage, untold: Untold
) -> TrainedStage:
    state = karlo_names.prior_names(_within(path, "model."), untold.head_dim)
    layers = len({k.split(".")[1] for k in state if k.startswith("transformer_blocks.")})
    if not layers or "proj_in.weight" not in state:
        raise UserError(f"{path} does not hold the weights of karlo's prior")
    width = state["proj_in.weight"].shape[0]
    model = {
        **{"width": width, "layers": layers, "heads": width // untold.head_dim},
        **{"null_text": "empty", "embedding_scale": "whiten"},
    }
    config = imported_config(
        "prior", model, {"prediction": "x0"}, {**sampling.PRIOR, "clip_range": CLIP_RANGE}
    )
    entries = names.prior_entries(layers)
    return imported_stage(
        config,
        lambda shapes: tensor_map.to_ours(entries, state, shapes, "prior"),
        source=str(path),
        clip=clip,
        step=_step(path),
        statistics=_statistics(statistics, clip.model.embedding_dim),
        provenance=_provenance(path, statistics),
    )


def _decoder(path: pathlib.Path, clip: TrainedStage, untold: Untold) -> TrainedStage:
    state = _within(path, "model.")
    form, projections = karlo_names.ladder(state), karlo_names.text_proj_names(state)
    unet = karlo_names.unet_names(state, untold.head_dim)
    width = projections["text_encoder_hidden_states_norm.weight"].shape[0]
    model = {
        **_model(form, untold),
        "image_size": untold.image_size,
        "attention_resolutions": [untold.image_size >> level for level in form.attends],
        "head_channels": untold.head_dim,
        "context_width": width,
        "image_tokens": projections["clip_extra_context_tokens_proj.bias"].shape[0] // width,
        "null_text": "empty",
        "embedding_scale": "raw",
    }
    config = imported_config("decoder", model, {"learned_variance": True}, sampling.DECODER)

    def load(shapes: Shapes) -> dict[str, Any]:
        own = {k: v for k, v in shapes.items() if not k.startswith("unet/")}
        rest = tensor_map.to_ours(names.text_proj_entries(), projections, own, "projections")
        return {"unet": read_unet(unet, shapes, "unet/", len(form.widths), "decoder"), **rest}

    return imported_stage(
        config, load, source=str(path), clip=clip, step=_step(path), provenance=_provenance(path)
    )


def _upsampler(path: pathlib.Path, untold: Untold) -> TrainedStage:
    first, last = (_within(path, f"model_{part}.") for part in ("first_steps", "last_step"))
    form = karlo_names.ladder(first)
    model = {
        **_model(form, untold),
        **{"low_size": untold.image_size, "image_size": untold.large_size, "last_step": "own"},
    }
    config = imported_config("upsampler", model, {}, sampling.UPSAMPLER)

    def unet(state: State, shapes: Shapes, prefix: str) -> dict[str, Any]:
        renamed = karlo_names.unet_names(state, untold.head_dim)
        return {"unet": read_unet(renamed, shapes, f"{prefix}unet/", len(form.widths), "upsampler")}

    def load(shapes: Shapes) -> dict[str, Any]:
        own = unet(last, shapes, f"{LAST_STEP}/")
        return {**unet(first, shapes, ""), LAST_STEP: own}

    return imported_stage(
        config, load, source=str(path), step=_step(path), provenance=_provenance(path)
    )


def _model(form: Ladder, untold: Untold) -> dict[str, Any]:
    return {
        "channels": form.widths[0],
        "multipliers": [width // form.widths[0] for width in form.widths],
        "depth": form.depth,
        "norm_groups": untold.norm_groups,
    }


def _within(path: pathlib.Path, prefix: str) -> dict[str, np.ndarray]:
    """The tensors under a prefix, without it; trainers keep other things beside the model."""
    state = read_state_dict(path)
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not found:
        raise UserError(f"{path} holds no tensors called {prefix}…: it is not karlo's")
    return found


def _find(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(f"{folder}: {len(found)} files are called {pattern}, one is needed")
    return found[0]


def _statistics(path: pathlib.Path, dim: int) -> dict[str, np.ndarray]:
    values = [np.asarray(v, np.float32).reshape(-1) for v in read_state_dict(path).values()]
    if [v.shape for v in values] != [(dim,), (dim,)]:
        raise UserError(f"{path} does not hold a mean and a standard deviation of {dim} numbers")
    return {"mean": values[0], "std": values[1]}


def _step(path: pathlib.Path) -> int:
    found = _STEP.search(path.name)
    return round(float(found[1]) * (1e6 if found[2] else 1)) if found else 0


def _provenance(*paths: pathlib.Path) -> Mapping[str, Any]:
    return {"imported": {"format": "karlo", "files": file_facts(paths)}}
