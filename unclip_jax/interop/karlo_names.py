"""karlo's tensor names to diffusers': its U-Nets are numbered as in guided-diffusion.

`input_blocks` is one list going down (the stem, then per level `depth` blocks and one that halves
the map), `output_blocks` one going up, whose doubling block is the last part of a level's last
entry. karlo interleaves heads: the rows of `qkv` are (head, {q, k, v}, head_dim), those of
`encoder_kv` (head, {k, v}, head_dim), and both are convolutions of width 1.

Source: kakaobrain/karlo; openai/guided-diffusion, `unet.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unclip_jax.errors import UserError

State = Mapping[str, np.ndarray]

_RES = {
    **{"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj"},
    **{"out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"},
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
_FUSED = {"qkv": ("to_q", "to_k", "to_v"), "encoder_kv": ("add_k_proj", "add_v_proj")}
_TOP = {
    **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
    **{"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"},
}
_TEXT_PROJ = {
    "text_seq_proj.0": "encoder_hidden_states_proj",
    "text_seq_proj.1": "text_encoder_hidden_states_norm",
    "text_feat_proj": "embedding_proj",
    "clip_tok_proj": "clip_extra_context_tokens_proj",
    "clip_emb": "clip_image_embeddings_project_to_time_embeddings",
    "cf_param": "learned_classifier_free_guidance_embeddings",
}
_PRIOR = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "clip_img_proj": "proj_in",
    "text_emb_proj": "embedding_proj",
    "text_enc_proj": "encoder_hidden_states_proj",
    "prd_emb": "prd_embedding",
    "final_ln": "norm_out",
    "out_proj": "proj_to_clip_embeddings",
}
_PRIOR_BLOCK = {
    **{"ln_1": "norm1", "ln_2": "norm3", "attn.c_proj": "attn1.to_out.0"},
    **{"mlp.c_fc": "ff.net.0.proj", "mlp.c_proj": "ff.net.2"},
}
_DOUBLING = re.compile(r"output_blocks\.\d+\.([12])\.in_layers\.0\.weight")


@dataclass(frozen=True)
class Ladder:
    """The form of a U-Net, read from its tensors.

    Attributes:
      widths: channels of each level.
      depth: blocks per level.
      attends: levels with attention.
    """

    widths: tuple[int, ...]
    depth: int
    attends: tuple[int, ...]


def ladder(state: State) -> Ladder:
    """The form of a karlo U-Net.

    Raises:
      UserError: no U-Net of this kind.
    """
    doubling = [name for name in state if _DOUBLING.fullmatch(name)]
    entries = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
    levels = len(doubling) + 1
    if not entries or entries % levels:
        raise UserError("these are not the weights of a karlo U-Net: no whole input_blocks")
    depth = entries // levels - 1
    firsts = [1 + level * (depth + 1) for level in range(levels)]
    return Ladder(
        tuple(state[f"input_blocks.{n}.0.out_layers.3.weight"].shape[0] for n in firsts),
        depth,
        tuple(i for i, n in enumerate(firsts) if f"input_blocks.{n}.1.qkv.weight" in state),
    )


def unet_names(state: State, head_dim: int) -> dict[str, np.ndarray]:
    """The tensors of a U-Net by diffusers' names; those of its projections are left out."""
    form, renamed = ladder(state), {}
    owners = _owners(form)
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer in _TOP:
            renamed[f"{_TOP[layer]}.{leaf}"] = value
            continue
        parts = layer.split(".")
        place = ".".join(parts[: 2 if parts[0] == "middle_block" else 3])
        if place in owners:
            inner = layer[len(place) + 1 :]
            renamed |= _inner(owners[place], inner, leaf, value, head_dim)
        elif not layer.startswith(tuple(_TEXT_PROJ)) and name not in _TEXT_PROJ:
            renamed[name] = value  # unknown: whoever reads the result will name it
    return renamed


def text_proj_names(state: State) -> dict[str, np.ndarray]:
    """The tensors of a decoder outside of its U-Net, by diffusers' names."""
    renamed = {}
    for ours, theirs in _TEXT_PROJ.items():
        if ours in state:
            renamed[theirs] = state[ours]
        for leaf in ("weight", "bias"):
            if f"{ours}.{leaf}" in state:
                renamed[f"{theirs}.{leaf}"] = state[f"{ours}.{leaf}"]
    return renamed


def prior_names(state: State, head_dim: int) -> dict[str, np.ndarray]:
    """The tensors of a prior by diffusers' names."""
    renamed = {}
    for name, value in state.items():
        block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if not block:
            layer, _, leaf = name.rpartition(".")
            plain = _PRIOR.get(name, name)
            renamed[f"{_PRIOR[layer]}.{leaf}" if layer in _PRIOR else plain] = value
        elif block[2] == "attn.c_qkv":
            names = [f"transformer_blocks.{block[1]}.attn1.to_{x}.{block[3]}" for x in "qkv"]
            renamed |= dict(zip(names, split_heads(value, 3, head_dim), strict=True))
        else:
            inner = _PRIOR_BLOCK.get(block[2], block[2])
            renamed[f"transformer_blocks.{block[1]}.{inner}.{block[3]}"] = value
    return renamed


def split_heads(value: np.ndarray, parts: int, head_dim: int) -> list[np.ndarray]:
    """Rows (head, part, head_dim) -> `parts` arrays with rows (head, head_dim)."""
    rows, rest = value.shape[0], value.shape[1:]
    if rows % (parts * head_dim):
        raise UserError(f"{rows} rows are not {parts} of heads of {head_dim}: give --head-dim")
    heads = value.reshape(-1, parts, head_dim, *rest)
    return [heads[:, i].reshape(rows // parts, *rest) for i in range(parts)]


def _owners(form: Ladder) -> dict[str, str]:
    """{karlo's block: diffusers' block}."""
    levels, width = len(form.widths), form.depth + 1
    owners = {"middle_block.0": "mid_block.resnets.0"}
    if form.attends:
        owners["middle_block.1"] = "mid_block.attentions.0"
    owners[f"middle_block.{2 if form.attends else 1}"] = "mid_block.resnets.1"
    for level in range(levels):
        attends, up = level in form.attends, levels - 1 - level
        for j in range(width):
            down = f"input_blocks.{1 + level * width + j}"
            last = j == form.depth
            owners[f"{down}.0"] = f"down_blocks.{level}." + (
                "downsamplers.0" if last else f"resnets.{j}"
            )
            out = f"output_blocks.{up * width + j}"
            owners[f"{out}.0"] = f"up_blocks.{up}.resnets.{j}"
            if attends:
                owners[f"{down}.1"] = f"down_blocks.{level}.attentions.{j}"
                owners[f"{out}.1"] = f"up_blocks.{up}.attentions.{j}"
            if last and level > 0:
                owners[f"{out}.{2 if attends else 1}"] = f"up_blocks.{up}.upsamplers.0"
    return owners


def _inner(
    owner: str, inner: str, leaf: str, value: np.ndarray, head_dim: int
) -> dict[str, np.ndarray]:
    """One tensor of a block: renamed, split by heads, without the width of a convolution of 1."""
    attention = "attentions" in owner
    if attention and leaf == "weight" and value.ndim == 3:
        value = value[:, :, 0]
    if inner in _FUSED:
        parts = split_heads(value, len(_FUSED[inner]), head_dim)
        names = [f"{owner}.{theirs}.{leaf}" for theirs in _FUSED[inner]]
        return dict(zip(names, parts, strict=True))
    renames = _ATTENTION if attention else _RES
    return {f"{owner}.{renames.get(inner, inner)}.{leaf}": value}
