"""A CLIP of OpenAI, OpenCLIP or Hugging Face as a stage of ours, ready to be put into a bundle."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from unclip_jax.config.schema import ClipModel
from unclip_jax.core.hashing import weights_hash
from unclip_jax.errors import UserError
from unclip_jax.generation import TrainedStage
from unclip_jax.interop.clip_facts import Facts, clip_model, facts_of_config
from unclip_jax.interop.clip_weights import import_clip
from unclip_jax.interop.foreign import read_state_dict
from unclip_jax.interop.imported import file_facts, imported_config
from unclip_jax.stages.clip import make_clip

# In the order of preference; the names that the Hub's repositories use.
WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
CONFIGS = ("open_clip_config.json", "config.json")


def import_clip_stage(path: pathlib.Path, facts: Facts | None = None) -> TrainedStage:
    """The stage of a weights file, or of a folder of the Hub that holds one.

    Args:
      path: .safetensors, .pt, .pth, .bin or .ckpt, see `read_state_dict`; or a folder.
      facts: what goes before whatever is found beside the weights.

    Raises:
      UserError: no weights there, weights of something else, or a size that must be told.
    """
    files = _weights_files(path)
    state: dict[str, np.ndarray] = {}
    for file in files:
        state |= read_state_dict(file)
    known = (facts or Facts()).over(_facts_beside(files[0].parent, files[0].name))
    model = clip_model(state, known)
    config = imported_config("clip", model)
    assert isinstance(config.model, ClipModel)
    params = import_clip(state, make_clip(config.model, "float32"))
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    return TrainedStage(
        config=config,
        params=params,
        step=0,
        weights_sha256=weights_hash(params),
        source=str(path),
        provenance={"imported_from": file_facts(files)},
    )


def _weights_files(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return [path]
    for name in WEIGHTS:
        index = path / f"{name}.index.json"
        if (path / name).is_file():
            return [path / name]
        if index.is_file():
            parts = sorted(set(_json(index)["weight_map"].values()))
            return [path / pathlib.PurePath(part).name for part in parts]
    raise UserError(f"{path} holds none of {', '.join(WEIGHTS)}")


def _facts_beside(folder: pathlib.Path, weights: str) -> Facts:
    """Of the config that belongs to the weights: a folder may hold both namings."""
    names = CONFIGS if weights.startswith("open_clip") else CONFIGS[::-1]
    for name in names:
        if (folder / name).is_file():
            return facts_of_config(_json(folder / name), str(folder / name))
    return Facts()


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
