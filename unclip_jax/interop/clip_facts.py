"""What kind of CLIP some weights are of: sizes from the tensors, the rest from what lies beside.

Shapes give every size but the number of heads, and no shape says whether the MLPs use GELU or
QuickGELU. Both come from, in this order: the caller; config.json (Hugging Face) or
open_clip_config.json beside the weights; marks of OpenAI's own files, whose towers all have heads
of 64 and QuickGELU. Heads also come from `CLIP_SIZES`, if the other sizes are those of a model in
it. A guess would load without complaint and embed badly, so what is still unknown is an error.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unclip_jax.errors import UserError
from unclip_jax.models.clip import CLIP_SIZES, IMAGE_MEAN, IMAGE_STD
from unclip_jax.models.text_tower import VOCAB_SIZE

StateDict = Mapping[str, np.ndarray]

OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
OPENAI_HEAD_DIM = 64


@dataclass(frozen=True)
class Facts:
    """What shapes do not tell; None is unknown."""

    activation: str | None = None
    vision_heads: int | None = None
    text_heads: int | None = None

    def over(self, other: "Facts") -> "Facts":
        """These, completed by those of `other`."""
        return Facts(
            self.activation or other.activation,
            self.vision_heads or other.vision_heads,
            self.text_heads or other.text_heads,
        )


@dataclass(frozen=True)
class _Names:
    """Where a naming keeps the tensors that sizes are read from."""

    vision_positions: str
    patches: str
    vision_mlp: str
    text_positions: str
    tokens: str
    text_mlp: str
    projection: str
    projection_axis: int


_OPEN_CLIP = _Names(
    "visual.positional_embedding",
    "visual.conv1.weight",
    "visual.transformer.resblocks.{}.mlp.c_fc.weight",
    "positional_embedding",
    "token_embedding.weight",
    "transformer.resblocks.{}.mlp.c_fc.weight",
    "text_projection",
    1,
)
_HUGGING_FACE = _Names(
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.encoder.layers.{}.mlp.fc1.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.embeddings.token_embedding.weight",
    "text_model.encoder.layers.{}.mlp.fc1.weight",
    "text_projection.weight",
    0,
)


def clip_model(state: StateDict, facts: Facts) -> dict[str, Any]:
    """The settings of a `config.ClipModel` for these weights, in either naming.

    Raises:
      UserError: no CLIP of this kind, another vocabulary, or an unknown that nobody told.
    """
    state = {k.removeprefix("text."): v for k, v in state.items()}
    sizes = _sizes(state, _HUGGING_FACE if _HUGGING_FACE.patches in state else _OPEN_CLIP)
    found = facts.over(_of_openai(state, sizes)).over(_of_known_sizes(sizes))
    for name, value in (("vision", found.vision_heads), ("text", found.text_heads)):
        if value is None:
            raise UserError(
                f"the number of heads of the {name} tower can't be read from these weights: "
                f"give --{name}-heads, or lay their config.json beside them"
            )
    if found.activation is None:
        raise UserError(
            "these weights don't say whether they were trained with QuickGELU (OpenAI) or GELU "
            "(LAION): give --activation, or lay their config.json beside them"
        )
    return {
        **sizes,
        "vision_heads": found.vision_heads,
        "text_heads": found.text_heads,
        "activation": found.activation,
        "loss": "sigmoid" if "logit_bias" in state else "softmax",
    }


def facts_of_config(config: Mapping[str, Any], source: str) -> Facts:
    """What a config.json of Hugging Face or an open_clip_config.json says."""
    if "model_cfg" in config:
        return _of_open_clip(config, source)
    # transformers leaves out what equals its defaults.
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    vision = {"hidden_act": "quick_gelu", "num_attention_heads": 12, **vision}
    text = {"hidden_act": "quick_gelu", "num_attention_heads": 8, **text}
    if vision["hidden_act"] != text["hidden_act"]:
        raise UserError(f"{source}: the two towers have different activations")
    return Facts(
        _known_activation(vision["hidden_act"], source),
        vision["num_attention_heads"],
        text["num_attention_heads"],
    )


def _of_open_clip(config: Mapping[str, Any], source: str) -> Facts:
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg") or {}
    for name, ours in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
        theirs = preprocess.get(name, ours)
        if not np.allclose(theirs, ours, atol=1e-4):
            raise UserError(
                f"{source}: pictures are normalised with {name} {theirs}, but CLIP's is {ours}"
            )
    vision, text = model["vision_cfg"], model["text_cfg"]
    width = vision.get("width", 768)
    return Facts(
        "quick_gelu" if model.get("quick_gelu") else "gelu",
        width // vision.get("head_width", 64) if isinstance(width, int) else None,
        text.get("heads", 8),
    )


def _known_activation(name: str, source: str) -> str:
    if name not in ("gelu", "quick_gelu"):
        raise UserError(f"{source}: activation {name!r} is neither gelu nor quick_gelu")
    return name


def _sizes(state: StateDict, names: _Names) -> dict[str, Any]:
    wanted = (names.vision_positions, names.patches, names.text_positions, names.tokens)
    missing = [name for name in (*wanted, names.projection) if name not in state]
    if missing:
        raise UserError(
            f"these are not the weights of a CLIP with two transformers: no tensor {missing[0]}"
        )
    vocabulary, text_width = state[names.tokens].shape
    if vocabulary != VOCAB_SIZE:
        raise UserError(
            f"this CLIP has a vocabulary of {vocabulary:,} tokens, but the tokenizer's has "
            f"{VOCAB_SIZE:,}"
        )
    width, _, patch, _ = state[names.patches].shape
    side = math.isqrt(state[names.vision_positions].shape[0] - 1)
    vision_layers, vision_mlp = _layers(state, names.vision_mlp)
    text_layers, text_mlp = _layers(state, names.text_mlp)
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": vision_layers,
        "vision_mlp_dim": None if vision_mlp == 4 * width else vision_mlp,
        "text_width": text_width,
        "text_layers": text_layers,
        "text_mlp_dim": None if text_mlp == 4 * text_width else text_mlp,
        "embedding_dim": state[names.projection].shape[names.projection_axis],
        "context_length": state[names.text_positions].shape[0],
    }


def _layers(state: StateDict, name: str) -> tuple[int, int]:
    """(how many layers, hidden size of their MLPs)."""
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
    numbers = [int(found[1]) for k in state if (found := pattern.fullmatch(k))]
    if not numbers:
        raise UserError(f"these are not the weights of a CLIP: no tensor {name.format(0)}")
    return max(numbers) + 1, state[name.format(0)].shape[0]


def _of_openai(state: StateDict, sizes: Mapping[str, Any]) -> Facts:
    if not state.keys() >= set(OPENAI_MARKS):
        return Facts()
    heads = (sizes[f"{tower}_width"] // OPENAI_HEAD_DIM for tower in ("vision", "text"))
    return Facts("quick_gelu", *heads)


def _of_known_sizes(sizes: Mapping[str, Any]) -> Facts:
    """Heads only: the same sizes were trained with both activations."""
    mine = {k: v for k, v in sizes.items() if v is not None and k != "context_length"}
    for known in CLIP_SIZES.values():
        if all(known.get(k) == v for k, v in mine.items()):
            return Facts(None, known["vision_heads"], known["text_heads"])
    return Facts()
