"""Hugging Face's configs of CLIP's towers, from our config and back; picture preparation."""

from collections.abc import Mapping
from typing import Any

from unclip_jax.config.schema import ClipModel
from unclip_jax.errors import UserError
from unclip_jax.interop.tensor_map import StateDict
from unclip_jax.models.clip import IMAGE_MEAN, IMAGE_STD
from unclip_jax.models.text_tower import EOT_ID, VOCAB_SIZE

Settings = dict[str, Any]

# transformers leaves out what equals its defaults.
_TEXT_DEFAULTS = {"num_attention_heads": 8, "hidden_act": "quick_gelu"}
_VISION_DEFAULTS = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "image_size": 224}
# A CLIP without its image tower; the sizes mean nothing.
TEXT_ONLY = {
    "towers": "text",
    **dict.fromkeys(
        ("image_size", "patch_size", "vision_width", "vision_layers", "vision_heads"), 1
    ),
}


def text_config(model: ClipModel, architecture: str | None = None) -> Settings:
    """Of CLIPTextModelWithProjection, or of the text tower in a CLIPModel."""
    return {
        **_head(architecture),
        "model_type": "clip_text_model",
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": model.context_length,
        "bos_token_id": EOT_ID - 1,
        # The real one. OpenAI's configs say 2, which makes transformers look for the largest id.
        "eos_token_id": EOT_ID,
        "pad_token_id": EOT_ID,
        **_tower(model, model.text_width, model.text_layers, model.text_heads),
        "intermediate_size": mlp_dim(model, "text"),
    }


def vision_config(model: ClipModel, architecture: str | None = None) -> Settings:
    """Of CLIPVisionModelWithProjection, or of the vision tower in a CLIPModel."""
    return {
        **_head(architecture),
        "model_type": "clip_vision_model",
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "num_channels": 3,
        **_tower(model, model.vision_width, model.vision_layers, model.vision_heads),
        "intermediate_size": mlp_dim(model, "vision"),
    }


def text_model(config: Mapping[str, Any], state: StateDict, where: str) -> Settings:
    """The text settings of our `ClipModel`, sizes from the tensors."""
    config = {**_TEXT_DEFAULTS, **config}
    vocabulary, width = state["text_model.embeddings.token_embedding.weight"].shape
    if vocabulary != VOCAB_SIZE:
        raise UserError(
            f"{where}: a vocabulary of {vocabulary:,} tokens, CLIP's has {VOCAB_SIZE:,}"
        )
    layers, mlp_dim = _layers(state, "text_model")
    return {
        "context_length": state["text_model.embeddings.position_embedding.weight"].shape[0],
        "text_width": width,
        "text_layers": layers,
        "text_heads": config["num_attention_heads"],
        "embedding_dim": state["text_projection.weight"].shape[0],
        "activation": _activation(config, where),
        **({} if mlp_dim == 4 * width else {"text_mlp_dim": mlp_dim}),
    }


def vision_model(config: Mapping[str, Any], state: StateDict, where: str) -> Settings:
    """The vision settings of our `ClipModel`, sizes from the tensors where they tell."""
    config = {**_VISION_DEFAULTS, **config}
    width, _, patch, _ = state["vision_model.embeddings.patch_embedding.weight"].shape
    layers, mlp_dim = _layers(state, "vision_model")
    return {
        "image_size": config["image_size"],
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": layers,
        "vision_heads": config["num_attention_heads"],
        "embedding_dim": state["visual_projection.weight"].shape[0],
        "activation": _activation(config, where),
        **({} if mlp_dim == 4 * width else {"vision_mlp_dim": mlp_dim}),
    }


def preprocessor_config(model: ClipModel) -> Settings:
    """Of CLIPImageProcessor: how a picture becomes what the vision tower takes."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": model.image_size, "width": model.image_size},
        "size": {"shortest_edge": model.image_size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def _head(architecture: str | None) -> Settings:
    return {} if architecture is None else {"architectures": [architecture]}


def _tower(model: ClipModel, width: int, layers: int, heads: int) -> Settings:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": model.embedding_dim,
        "hidden_act": model.activation,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
    }


def mlp_dim(model: ClipModel, tower: str) -> int:
    """Hidden size of the MLPs of "text" or "vision"."""
    return getattr(model, f"{tower}_mlp_dim", None) or 4 * getattr(model, f"{tower}_width")


def _layers(state: StateDict, tower: str) -> tuple[int, int]:
    """(how many layers, hidden size of their MLPs)."""
    name = tower + ".encoder.layers.{}.mlp.fc1.weight"
    count = 0
    while name.format(count) in state:
        count += 1
    return count, state[name.format(0)].shape[0]


def _activation(config: Mapping[str, Any], where: str) -> str:
    if config["hidden_act"] not in ("gelu", "quick_gelu"):
        raise UserError(f"{where}: activation {config['hidden_act']!r} is not gelu or quick_gelu")
    return config["hidden_act"]
