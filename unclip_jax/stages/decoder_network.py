"""The decoder's network as its config says, and what it is given beside x_t and t."""

from functools import partial

from jaxtyping import Array, Float, Int

from unclip_jax.config.schema import ClipModel, DecoderModel, RunConfig
from unclip_jax.core import precision
from unclip_jax.models import Clip, Decoder, TextFeatures, TextTower, UNet
from unclip_jax.stages import captions, embedding, features
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.conditions import NULL_TEXTS
from unclip_jax.stages.stage import Params


def make_decoder(config: RunConfig, model: DecoderModel) -> Decoder:
    """The network of a config."""
    dtype = precision.compute_dtype(config.precision.compute)
    unet = UNet(
        out_channels=6 if config.diffusion.learned_variance else 3,
        channels=model.channels,
        multipliers=model.multipliers,
        depth=model.depth,
        attention_factors=tuple(model.image_size // r for r in model.attention_resolutions),
        head_dim=model.head_channels,
        norm_groups=model.norm_groups,
        space_to_depth=model.space_to_depth,
        dropout=model.dropout,
        remat=model.remat,
        dtype=dtype,
    )
    tower = TextTower(
        width=model.text_width,
        layers=model.text_layers,
        heads=model.text_heads,
        context_length=model.context_length,
        remat=model.remat,
        dtype=dtype,
    )
    trained = model.text_encoder == "trained"
    return Decoder(
        unet=unet,
        context_width=model.text_width if trained else model.context_width,
        image_tokens=model.image_tokens,
        text_encoder={"clip": "states"}.get(model.text_encoder, model.text_encoder),
        text_tower=tower if trained else None,
        null_text=NULL_TEXTS[model.null_text],
    )


def context_length(model: DecoderModel, clip: ClipModel) -> int:
    """How many tokens a caption has: CLIP's own length unless the text encoder is trained."""
    return model.context_length if model.text_encoder == "trained" else clip.context_length


def conditioning(
    model: DecoderModel,
    clip: Clip,
    frozen: Params,
    z: Float[Array, "b d"],
    given: Captions,
    found: TextFeatures | None,
) -> dict[str, Array]:
    """The network's arguments for raw embeddings z and captions, those dropped that are to be.

    Args:
      found: CLIP's features of the captions, if the network reads them.
    """
    return captions.arguments(
        model.null_text, given, found,
        describe=partial(condition, model, frozen, z),
        features_of=partial(features.text_features, clip, frozen),
    )  # fmt: skip


def condition(
    model: DecoderModel,
    frozen: Params,
    z: Float[Array, "b d"],
    found: TextFeatures | None,
    tokens: Int[Array, "b l"],
) -> dict[str, Array]:
    """The decoder's conditioning arguments, nothing dropped; `found` is CLIP's, if it reads it."""
    scaled = embedding.encode(model.embedding_scale, z, features.statistics(frozen))
    text: dict[str, Array] = {}
    if found is not None:
        text = text_arguments(model, tokens, found.embedding, found.states, found.mask)
    elif model.text_encoder == "trained":
        text = {"tokens": tokens}
    return {"image_embedding": scaled, **text}


def text_arguments(
    model: DecoderModel, tokens: Array, pooled: Array, states: Array, mask: Array
) -> dict[str, Array]:
    """What of a caption the network reads: CLIP's features, its tokens, or nothing."""
    if model.text_encoder == "clip":
        return {"text_embedding": pooled, "text_states": states, "text_mask": mask}
    return {"tokens": tokens} if model.text_encoder == "trained" else {}
