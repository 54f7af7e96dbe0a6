"""config.json of diffusers' unCLIP components, from our configs and back.

A folder that is read must say what we would write for the same network, setting by setting: what it
leaves out is diffusers' default, and what it adds must be empty. So an option that we don't have is
an error by name, never ignored.
"""

from collections.abc import Mapping
from typing import Any

from unclip_jax.config.diffusion_settings import Diffusion
from unclip_jax.config.schema import ClipModel, DecoderModel, PriorModel, UpsamplerModel
from unclip_jax.errors import UserError

Settings = dict[str, Any]

PREDICTIONS = {"sample": "x0", "epsilon": "epsilon"}
_SCHEDULES = {"squaredcos_cap_v2": "cosine"}
_OUR_SCHEDULES = {"cosine": "squaredcos_cap_v2", "squaredcos_cap_v2": "squaredcos_cap_v2"}

# What both U-Nets are made with and we have no choice in.
_UNET = {
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
}
_CONDITIONED = {
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "class_embed_type": "identity",
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dual_cross_attention": False,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "transformer_layers_per_block": 1,
    "upcast_attention": False,
    "use_linear_projection": False,
}
_PLAIN = {
    "add_attention": False,
    "class_embed_type": None,
    "downsample_type": "conv",
    "upsample_type": "conv",
}
# Settings of a network without attention that say something about attention.
_UNUSED = ("attention_head_dim", "attn_norm_num_groups", "mid_block_type")


def prior_config(model: PriorModel, clip: ClipModel) -> Settings:
    """Of PriorTransformer.

    Raises:
      UserError: a prior that PriorTransformer can't be.
    """
    _refuse(model.text_encoder != "clip", "prior", "text_encoder", model.text_encoder, "clip")
    _refuse(model.null_text != "empty", "prior", "null_text", model.null_text, "empty")
    _refuse_widths(clip)
    return {
        "_class_name": "PriorTransformer",
        "added_emb_type": "prd",
        "additional_embeddings": 4,
        "attention_head_dim": model.width // model.heads,
        "clip_embed_dim": None,
        "dropout": 0.0,
        "embedding_dim": clip.embedding_dim,
        "embedding_proj_dim": None,
        "embedding_proj_norm_type": None,
        "encoder_hid_proj_type": "linear",
        "norm_in_type": None,
        "num_attention_heads": model.heads,
        "num_embeddings": clip.context_length,
        "num_layers": model.layers,
        "time_embed_act_fn": "silu",
        "time_embed_dim": None,
    }


def prior_model(theirs: Mapping[str, Any]) -> Settings:
    """Settings of our `PriorModel`."""
    heads = theirs.get("num_attention_heads", 32)
    return {
        "width": heads * theirs.get("attention_head_dim", 64),
        "layers": theirs.get("num_layers", 20),
        "heads": heads,
        "null_text": "empty",
        "embedding_scale": "whiten",
    }


def decoder_config(model: DecoderModel, diffusion: Diffusion) -> Settings:
    """Of UNet2DConditionModel.

    Raises:
      UserError: a decoder that UnCLIPPipeline can't run.
    """
    _refuse(model.text_encoder != "clip", "decoder", "text_encoder", model.text_encoder, "clip")
    _refuse(model.null_text != "empty", "decoder", "null_text", model.null_text, "empty")
    _refuse(model.embedding_scale != "raw", "decoder", "embedding_scale", model.embedding_scale, "raw")  # fmt: skip  # noqa: E501
    _refuse(model.space_to_depth != 1, "decoder", "space_to_depth", model.space_to_depth, 1)
    if not diffusion.learned_variance:
        raise UserError("UnCLIPPipeline takes decoders with learned_variance=True only")
    attends = [size in model.attention_resolutions for size in model.resolutions]
    kinds = ["SimpleCrossAttn" if a else "Resnet" for a in attends]
    return {
        "_class_name": "UNet2DConditionModel",
        **_UNET,
        **_CONDITIONED,
        "attention_head_dim": model.head_channels,
        "block_out_channels": _channels(model.channels, model.multipliers, "decoder"),
        "cross_attention_dim": model.context_width,
        "down_block_types": [_block(kind, "Down") for kind in kinds],
        "dropout": model.dropout,
        "in_channels": 3,
        "layers_per_block": model.depth,
        "norm_num_groups": model.norm_groups,
        "out_channels": 6,
        "resnet_time_scale_shift": "scale_shift",
        "sample_size": model.image_size,
        "up_block_types": [_block(kind, "Up") for kind in reversed(kinds)],
    }


def decoder_model(theirs: Mapping[str, Any], text_proj: Mapping[str, Any]) -> Settings:
    """Settings of our `DecoderModel`."""
    size = _given(theirs, "sample_size", "decoder")
    attends = [i for i, kind in enumerate(theirs["down_block_types"]) if "CrossAttn" in kind]
    return {
        **_ladder(theirs, "decoder"),
        "image_size": size,
        "attention_resolutions": [size >> i for i in attends],
        "head_channels": _given(theirs, "attention_head_dim", "decoder"),
        "context_width": _given(theirs, "cross_attention_dim", "decoder"),
        "image_tokens": text_proj.get("clip_extra_context_tokens", 4),
        "null_text": "empty",
        "embedding_scale": "raw",
    }


def text_proj_config(model: DecoderModel, clip: ClipModel) -> Settings:
    """Of UnCLIPTextProjModel."""
    _refuse_widths(clip)
    return {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": clip.embedding_dim,
        "clip_extra_context_tokens": model.image_tokens,
        "cross_attention_dim": model.context_width,
        "time_embed_dim": 4 * model.channels,
    }


def upsampler_config(model: UpsamplerModel, diffusion: Diffusion) -> Settings:
    """Of UNet2DModel.

    Raises:
      UserError: an upsampler that UNet2DModel can't be.
    """
    _refuse(model.architecture != "adm", "upsampler", "architecture", model.architecture, "adm")
    _refuse(model.space_to_depth != 1, "upsampler", "space_to_depth", model.space_to_depth, 1)
    if diffusion.learned_variance:
        raise UserError("UnCLIPPipeline takes upsamplers with learned_variance=False only")
    count = len(model.multipliers)
    return {
        "_class_name": "UNet2DModel",
        **_UNET,
        **_PLAIN,
        "block_out_channels": _channels(model.channels, model.multipliers, "upsampler"),
        "down_block_types": [_block("Resnet", "Down")] * count,
        "dropout": model.dropout,
        "in_channels": 6,
        "layers_per_block": model.depth,
        "norm_num_groups": model.norm_groups,
        "out_channels": 3,
        "resnet_time_scale_shift": "scale_shift" if model.scale_shift else "default",
        "sample_size": model.image_size,
        "up_block_types": [_block("Resnet", "Up")] * count,
    }


def upsampler_model(theirs: Mapping[str, Any], low_size: int) -> Settings:
    """Settings of our `UpsamplerModel`."""
    return {
        **_ladder(theirs, "super_res_first"),
        "low_size": low_size,
        "image_size": _given(theirs, "sample_size", "super_res_first"),
        "scale_shift": theirs.get("resnet_time_scale_shift", "default") == "scale_shift",
    }


def scheduler_config(diffusion: Diffusion, clip_range: float | None) -> Settings:
    """Of UnCLIPScheduler.

    Raises:
      UserError: a process that UnCLIPScheduler doesn't have.
    """
    for name, value, known in (
        ("schedule", diffusion.schedule, _OUR_SCHEDULES),
        ("prediction", diffusion.prediction, PREDICTIONS.values()),
    ):
        if value not in known:
            raise UserError(
                f"diffusers' UnCLIPScheduler has no {name} {value!r}, only {', '.join(known)}"
            )
    theirs = {ours: name for name, ours in PREDICTIONS.items()}
    return {
        "_class_name": "UnCLIPScheduler",
        "beta_schedule": _OUR_SCHEDULES[diffusion.schedule],
        "clip_sample": clip_range is not None,
        "clip_sample_range": 1.0 if clip_range is None else clip_range,
        "num_train_timesteps": diffusion.num_steps,
        "prediction_type": theirs[diffusion.prediction],
        "variance_type": "learned_range" if diffusion.learned_variance else "fixed_small_log",
    }


def diffusion(theirs: Mapping[str, Any], where: str) -> tuple[Settings, float | None]:
    """(settings of our `Diffusion`, bound on the predicted x0) of an UnCLIPScheduler."""
    schedule = theirs.get("beta_schedule", "squaredcos_cap_v2")
    prediction = theirs.get("prediction_type", "epsilon")
    for name, value, known in (
        ("beta_schedule", schedule, _SCHEDULES),
        ("prediction_type", prediction, PREDICTIONS),
    ):
        if value not in known:
            raise UserError(f"{where}: {name} {value!r} is not one of {', '.join(known)}")
    clips = theirs.get("clip_sample", True)
    return {
        "schedule": _SCHEDULES[schedule],
        "num_steps": theirs.get("num_train_timesteps", 1000),
        "prediction": PREDICTIONS[prediction],
        "learned_variance": theirs.get("variance_type") == "learned_range",
    }, theirs.get("clip_sample_range", 1.0) if clips else None


def check_same(theirs: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for the first setting of theirs that is not what we would write."""
    for name, value in theirs.items():
        wanted = expected.get(name)
        unused = not expected.get("add_attention", True) and name in _UNUSED
        if not name.startswith("_") and value != wanted and not unused:
            raise UserError(
                f"{where}: {name} is {value!r}; only {wanted!r} can be imported in such a network"
            )


def _ladder(theirs: Mapping[str, Any], where: str) -> Settings:
    blocks = _given(theirs, "block_out_channels", where)
    if any(width % blocks[0] for width in blocks):
        raise UserError(f"{where}: block_out_channels {blocks} are not multiples of the first")
    return {
        "channels": blocks[0],
        "multipliers": [width // blocks[0] for width in blocks],
        "depth": theirs.get("layers_per_block", 2),
        "norm_groups": theirs.get("norm_num_groups", 32),
        "dropout": theirs.get("dropout", 0.0),
    }


def _channels(channels: int, multipliers: tuple[int, ...], what: str) -> list[int]:
    """diffusers derives the time embedding from the first level, so that must have factor 1."""
    _refuse(multipliers[0] != 1, what, "multipliers[0]", multipliers[0], 1)
    return [channels * m for m in multipliers]


def _block(kind: str, side: str) -> str:
    return f"{kind}{side}{'sample' if kind == 'Resnet' else ''}Block2D"


def _given(theirs: Mapping[str, Any], name: str, where: str) -> Any:
    if theirs.get(name) is None:
        raise UserError(f"{where}/config.json: {name} is missing")
    return theirs[name]


def _refuse(wrong: bool, what: str, name: str, value: Any, wanted: Any) -> None:
    if wrong:
        raise UserError(
            f"this {what} has {name}={value!r}, but diffusers' unCLIP needs {wanted!r}: train it "
            f"with --config.model.{name}={wanted}"
        )


def _refuse_widths(clip: ClipModel) -> None:
    if clip.text_width != clip.embedding_dim:
        raise UserError(
            f"diffusers' unCLIP needs a CLIP whose text_width ({clip.text_width}) equals its "
            f"embedding_dim ({clip.embedding_dim}), as in ViT-L/14"
        )
