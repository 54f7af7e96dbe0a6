"""Tensor names of diffusers' unCLIP components, from the paths of our parameters.

    prior              PriorTransformer, without clip_mean and clip_std (statistics of ours)
    decoder            UNet2DConditionModel: our parameters under "unet"
    text_proj          UnCLIPTextProjModel: those under "image" and "text"
    super_res_first    UNet2DModel: our parameters under "unet", and under "last_step/unet"
    super_res_last

diffusers counts up_blocks from the smallest map, we number levels from the largest.
"""

import re
from collections.abc import Iterable

from unclip_jax.interop.tensor_map import Entry, Shapes, linear, norm

_RES_BLOCK = {"time_proj": "time_emb_proj", "skip": "conv_shortcut"}
_ATTENTION = {
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "context_key": "add_k_proj",
    "context_value": "add_v_proj",
    "out": "to_out.0",
}
_LISTS = {"res": "resnets", "attention": "attentions"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_BLOCK = re.compile(r"(down|up|mid)_(?:(\d+)_)?(res|attention|resample)(?:_(\d+))?")
_TEXT_PROJ = {
    "image/embedding_proj": "clip_image_embeddings_project_to_time_embeddings",
    "image/tokens_proj": "clip_extra_context_tokens_proj",
    "text/pooled_proj": "embedding_proj",
    "text/states_proj": "encoder_hidden_states_proj",
}


def unet_entries(shapes: Shapes, levels: int) -> list[Entry]:
    """Entries of a U-Net.

    Args:
      shapes: of its parameters, by path within the U-Net.
    """
    return [
        Entry(path, (_unet_name(path, levels),), _layout(path, len(shape)))
        for path, shape in shapes.items()
    ]


def text_proj_entries() -> list[Entry]:
    """Entries of the decoder's parameters outside of its U-Net."""
    null = "learned_classifier_free_guidance_embeddings"
    return [
        Entry("image/null", (null,)),
        *(entry for ours, theirs in _TEXT_PROJ.items() for entry in linear(ours, theirs)),
        *norm("text/states_norm", "text_encoder_hidden_states_norm"),
    ]


def prior_entries(layers: int) -> list[Entry]:
    """Entries of a prior whose layers are not stacked."""
    return [
        Entry("query", ("prd_embedding",), leading=2),
        Entry("position_embedding", ("positional_embedding",), leading=1),
        *linear("time_embedding/linear_1", "time_embedding.linear_1"),
        *linear("time_embedding/linear_2", "time_embedding.linear_2"),
        *linear("image_embedding_in", "proj_in"),
        *linear("text_embedding_in", "embedding_proj"),
        *linear("text_states_in", "encoder_hidden_states_proj"),
        *(entry for i in range(layers) for entry in _prior_block(i)),
        *norm("norm_final", "norm_out"),
        *linear("out", "proj_to_clip_embeddings"),
    ]


def _prior_block(i: int) -> Iterable[Entry]:
    ours, theirs = f"transformer/block_{i}", f"transformer_blocks.{i}"
    return [
        *norm(f"{ours}/norm_1", f"{theirs}.norm1"),
        *linear(f"{ours}/qkv", *(f"{theirs}.attn1.to_{x}" for x in "qkv")),
        *linear(f"{ours}/attention_out", f"{theirs}.attn1.to_out.0"),
        *norm(f"{ours}/norm_2", f"{theirs}.norm3"),
        *linear(f"{ours}/mlp_in", f"{theirs}.ff.net.0.proj"),
        *linear(f"{ours}/mlp_out", f"{theirs}.ff.net.2"),
    ]


def _unet_name(path: str, levels: int) -> str:
    *layers, leaf = path.split("/")
    block = _BLOCK.fullmatch(layers[0])
    if not block:
        first = {"norm_out": "conv_norm_out"}.get(layers[0], layers[0])
        return ".".join([first, *layers[1:], _LEAVES[leaf]])
    side, level, kind, index = block.groups()
    if side == "mid":
        owner = "mid_block"
    else:
        owner = f"{side}_blocks.{level if side == 'down' else levels - 1 - int(level)}"
    listing = _LISTS.get(kind, f"{side}samplers")
    renames = _ATTENTION if kind == "attention" else _RES_BLOCK
    return f"{owner}.{listing}.{index or 0}.{renames.get(layers[1], layers[1])}.{_LEAVES[leaf]}"


def _layout(path: str, ndim: int) -> str:
    return {4: "conv", 2: "linear"}[ndim] if path.endswith("/kernel") else "same"
