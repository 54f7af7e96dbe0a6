"""CLIP weights in and out, in the two namings that exist.

"open_clip" is OpenAI's and open_clip's `CLIP` class (and `CustomTextCLIP`, which prefixes the text
tower with `text.`); "huggingface" is transformers' `CLIPModel` and its text-only and vision-only
halves. OpenAI fuses q, k and v in one matrix [3 out, in], Hugging Face has three; ours is
[in, 3, out]. Both keep the logarithm of the logit scale.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unclip_jax.core import trees
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.interop import tensor_map
from unclip_jax.interop.clip_facts import OPENAI_MARKS
from unclip_jax.interop.foreign import read_state_dict
from unclip_jax.interop.tensor_map import Entry, StateDict, linear, norm
from unclip_jax.models.clip import Clip
from unclip_jax.models.params import stack_layers, unstack_layers

__all__ = ["export_clip", "import_clip", "read_state_dict"]

DIALECTS = ("open_clip", "huggingface")
TOWERS = ("vision", "text")

# Facts about the model, or constant tables, that some files store beside the weights.
_NOT_WEIGHTS = {
    *OPENAI_MARKS,
    "attn_mask",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
}


def import_clip(state: StateDict, clip: Clip, towers: Sequence[str] = TOWERS) -> dict[str, Any]:
    """Our parameters from a state dict in either naming.

    Args:
      state: arrays by name, of any float dtype.
      clip: the model they are for; its sizes must be theirs, and its `scan_layers` says the layout.
      towers: both, or the one whose weights `state` holds (then without logit_scale).

    Returns:
      {"vision": ..., "text": ..., "logit_scale": ...}, float32 numpy arrays: what goes under
      "params" in `clip.apply`.

    Raises:
      UserError: for unknown, missing or misshapen tensors.
    """
    state = {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}
    if "text.token_embedding.weight" in state:
        state = {k.removeprefix("text."): v for k, v in state.items()}
    huggingface = any(k.startswith(("vision_model.", "text_model.")) for k in state)
    entries = _entries(clip, "huggingface" if huggingface else "open_clip", towers)
    params = tensor_map.to_ours(entries, state, _shapes(clip, towers), "CLIP")
    return stack_layers(params) if clip.scan_layers else params


def export_clip(
    params: Mapping[str, Any], clip: Clip, dialect: str, towers: Sequence[str] = TOWERS
) -> dict[str, np.ndarray]:
    """The inverse of `import_clip`: a float32 state dict, "open_clip" or "huggingface" by name.

    Raises:
      UserError: for an unknown dialect.
    """
    if dialect not in DIALECTS:
        raise UserError(f"unknown CLIP naming {dialect!r}{did_you_mean(dialect, DIALECTS)}")
    return tensor_map.to_theirs(_entries(clip, dialect, towers), unstack_layers(dict(params)))


def _shapes(clip: Clip, towers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    images = jnp.zeros((1, clip.image_size, clip.image_size, 3))
    tokens = jnp.zeros((1, clip.context_length), jnp.int32)
    single: dict[str, Any] = {"vision": (images, "encode_image"), "text": (tokens, "encode_text")}
    *arguments, method = single[towers[0]] if len(towers) == 1 else (images, tokens, "__call__")
    init = partial(clip.clone(scan_layers=False).init, method=method)
    abstract: Any = jax.eval_shape(init, jax.random.key(0), *arguments)["params"]
    return {path: leaf.shape for path, leaf in trees.flatten(abstract).items()}


def _entries(clip: Clip, dialect: str, towers: Sequence[str]) -> list[Entry]:
    layers = {"vision": clip.vision_layers, "text": clip.text_layers}
    tower = _open_clip_tower if dialect == "open_clip" else _huggingface_tower
    entries = [entry for name in towers for entry in tower(name, layers[name])]
    if set(towers) == set(TOWERS):
        scalars = ["logit_scale"] + ["logit_bias"] * (clip.initial_logit_bias is not None)
        entries += [Entry(name, (name,)) for name in scalars]
    return entries


def _open_clip_tower(name: str, layers: int) -> list[Entry]:
    prefix = "visual." if name == "vision" else ""
    entries = []
    for i in range(layers):
        ours, theirs = f"{name}/transformer/block_{i}", f"{prefix}transformer.resblocks.{i}"
        entries += [
            *norm(f"{ours}/norm_1", f"{theirs}.ln_1"),
            Entry(f"{ours}/qkv/kernel", (f"{theirs}.attn.in_proj_weight",), "linear", fused=True),
            Entry(f"{ours}/qkv/bias", (f"{theirs}.attn.in_proj_bias",), fused=True),
            *linear(f"{ours}/attention_out", f"{theirs}.attn.out_proj"),
            *norm(f"{ours}/norm_2", f"{theirs}.ln_2"),
            *linear(f"{ours}/mlp_in", f"{theirs}.mlp.c_fc"),
            *linear(f"{ours}/mlp_out", f"{theirs}.mlp.c_proj"),
        ]
    if name == "text":
        return [
            Entry("text/token_embedding/embedding", ("token_embedding.weight",)),
            Entry("text/position_embedding", ("positional_embedding",)),
            *entries,
            *norm("text/norm_final", "ln_final"),
            Entry("text_projection/kernel", ("text_projection",)),
        ]
    return [
        Entry("vision/patch_embedding/kernel", ("visual.conv1.weight",), "conv"),
        Entry("vision/class_embedding", ("visual.class_embedding",)),
        Entry("vision/position_embedding", ("visual.positional_embedding",)),
        *norm("vision/norm_pre", "visual.ln_pre"),
        *entries,
        *norm("vision/norm_post", "visual.ln_post"),
        Entry("vision_projection/kernel", ("visual.proj",)),
    ]


def _huggingface_tower(name: str, layers: int) -> list[Entry]:
    entries = []
    for i in range(layers):
        ours, theirs = f"{name}/transformer/block_{i}", f"{name}_model.encoder.layers.{i}"
        qkv = [f"{theirs}.self_attn.{x}_proj" for x in "qkv"]
        entries += [
            *norm(f"{ours}/norm_1", f"{theirs}.layer_norm1"),
            *linear(f"{ours}/qkv", *qkv),
            *linear(f"{ours}/attention_out", f"{theirs}.self_attn.out_proj"),
            *norm(f"{ours}/norm_2", f"{theirs}.layer_norm2"),
            *linear(f"{ours}/mlp_in", f"{theirs}.mlp.fc1"),
            *linear(f"{ours}/mlp_out", f"{theirs}.mlp.fc2"),
        ]
    embeddings = f"{name}_model.embeddings"
    positions = Entry(f"{name}/position_embedding", (f"{embeddings}.position_embedding.weight",))
    if name == "text":
        return [
            Entry("text/token_embedding/embedding", (f"{embeddings}.token_embedding.weight",)),
            positions,
            *entries,
            *norm("text/norm_final", "text_model.final_layer_norm"),
            Entry("text_projection/kernel", ("text_projection.weight",), "linear"),
        ]
    return [
        Entry("vision/patch_embedding/kernel", (f"{embeddings}.patch_embedding.weight",), "conv"),
        Entry("vision/class_embedding", (f"{embeddings}.class_embedding",)),
        positions,
        *norm("vision/norm_pre", "vision_model.pre_layrnorm"),  # sic
        *entries,
        *norm("vision/norm_post", "vision_model.post_layernorm"),
        Entry("vision_projection/kernel", ("visual_projection.weight",), "linear"),
    ]
