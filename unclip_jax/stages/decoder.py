"""Stage `decoder`: pictures from a CLIP image embedding and a caption (paper, section 2.1).

The embedding and the caption are dropped independently (10 % and 50 % in the paper), so that
either can be guided, or left out, when sampling. With `inpainting` it is also shown a part of the
picture (see `inpainting.py`).
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, DecoderModel, RunConfig
from unclip_jax.core import images, precision, rng
from unclip_jax.diffusion import Known, guidance
from unclip_jax.models import Clip, Decoder, TextFeatures, TextTower, UNet
from unclip_jax.stages import captions, embedding, features, inpainting
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.conditions import NULL_TEXTS, flags
from unclip_jax.stages.objective import Network, diffusion_loss
from unclip_jax.stages.sampling import Conditions, Plan, draw, make_plan, start
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage
from unclip_jax.stages.tiles import tiled


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
        dropout=model.dropout,
        remat=model.remat,
        dtype=dtype,
    )
    tower = TextTower(
        width=model.text_width,
        layers=model.text_layers,
        heads=model.text_heads,
        context_length=model.context_length,
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


def build(config: RunConfig, model: DecoderModel, clip_model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "decoder", beside the frozen CLIP of `clip_model`."""
    net, clip = make_decoder(config, model), make_clip(clip_model, config.precision.compute)
    objective = diffusion_loss(config, num_levels=256)
    stored = config.data.embeddings == "stored"
    reads_clip_text = model.text_encoder == "clip"
    size = model.image_size

    def init(key: Key[Array, ""]) -> Params:
        z = jnp.zeros((1, clip_model.embedding_dim))
        text = _text_arguments(
            model,
            jnp.zeros((1, context_length(model, clip_model)), jnp.int32),
            z,
            jnp.zeros((1, clip_model.context_length, clip_model.text_width)),
            jnp.ones((1, clip_model.context_length), bool),
        )
        no = jnp.zeros(1, bool)
        x = jnp.zeros((1, size, size, 3 + inpainting.EXTRA_CHANNELS * model.inpainting))
        arguments = {"image_embedding": z, "drop_image": no, **text}
        params = net.init(key, x, jnp.zeros(1, jnp.int32), **arguments)["params"]
        return inpainting.start_from_zero(params) if model.inpainting else params

    def text_arguments(frozen: Params, batch: Batch, dropped: Array) -> dict[str, Array]:
        z = features.image_embedding(clip, frozen, batch)
        found = features.batch_text(clip, frozen, batch) if reads_clip_text else None
        return captions.arguments(
            model.null_text, Captions(batch["tokens"], dropped), found,
            describe=partial(condition, model, frozen, z),
            features_of=partial(features.text_features, clip, frozen),
        )  # fmt: skip

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        conditioning = text_arguments(frozen, batch, flags(keys, "drop text", model.drop_text))
        conditioning["drop_image"] = flags(keys, "drop image", model.drop_image)
        dropout = rng.fold_in_name(keys, "dropout")
        picture = images.to_float(batch[f"image_{size}"])
        known: tuple[Array, ...] = ()
        if model.inpainting:
            mask = inpainting.sample_masks(rng.fold_in_name(keys, "mask"), size, model.drop_known)
            known = (inpainting.known_channels(picture, mask),)

        def network(x_t: Array, t: Array) -> Array:
            return net.apply(
                {"params": params},
                jnp.concatenate([x_t, *known], axis=-1),
                t,
                **conditioning,
                deterministic=model.dropout == 0,
                dropout_keys=dropout,
            )

        return objective(network, picture, keys, frozen)

    def task(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Network, Float[Array, "b s s 3"]]:
        del keys  # nothing is drawn
        no = jnp.zeros(len(batch["tokens"]), bool)
        conditioning = text_arguments(frozen, batch, no) | {"drop_image": no}

        def network(x_t: Array, t: Array) -> Array:
            if model.inpainting:
                unknown = inpainting.nothing_known(*x_t.shape[:3])
                x_t = jnp.concatenate([x_t, unknown], axis=-1)
            return net.apply({"params": params}, x_t, t, **conditioning)

        return network, images.to_float(batch[f"image_{size}"])

    def draw_captioned(
        params: Params, frozen: Params, tokens: Array, keys: Array, z: Array, drop_image: Array
    ) -> Array:
        no = jnp.zeros(len(keys), bool)
        captioned, uncaptioned = Captions(tokens, no), Captions(tokens, ~no)
        request = DecoderRequest(z, drop_image, captioned, uncaptioned)
        plan = make_plan(config)
        return sample_decoder(config, model, clip, params, frozen, request, keys, plan)

    def preview(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        z = features.image_embedding(clip, frozen, batch)
        shown = jnp.zeros(len(keys), bool)
        drawn = draw_captioned(params, frozen, batch["tokens"], keys, z, shown)
        return {"real": images.to_float(batch[f"image_{size}"]), "from its embedding": drawn}

    def preview_text(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> dict[str, Array]:
        z = jnp.ones((len(keys), clip_model.embedding_dim))
        dropped = jnp.ones(len(keys), bool)
        drawn = draw_captioned(params, frozen, batch["tokens"], keys, z, dropped)
        return {"from the text alone": drawn}

    clip_size = () if stored else (clip_model.image_size,)
    needs = BatchNeeds(
        image_sizes=tuple(sorted({size, *clip_size})),
        context_length=context_length(model, clip_model),
        embeddings=(("image",) if stored else ())
        + (features.stored_text(config, "clip") if reads_clip_text else ()),
    )
    from_text = None if model.text_encoder == "none" else preview_text
    return Stage(
        "decoder", needs, init, loss, preview, from_text, memory=objective.memory, task=task
    )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["z", "drop_image", "captions", "negative", "noise", "picture", "known"],
    meta_fields=["shown"],
)
@dataclasses.dataclass(frozen=True)
class DecoderRequest:
    """What a batch of pictures is drawn from; a pytree of arrays on the host or on devices.

    Attributes:
      z: raw CLIP image embeddings [B, D].
      drop_image: True where there is none, bool [B].
      captions: what is wanted.
      negative: what guidance moves away from, beside the absence of an embedding.
      noise: x_T [B, H, W, 3]; None for each key's own.
      picture: where sampling starts, with noise on it, in [-1, 1]; None to start from noise.
      known: a part of the picture that is kept, or None.
      shown: whether a decoder with `inpainting` is told of it.
    """

    z: Any
    drop_image: Any
    captions: Captions
    negative: Captions
    noise: Any = None
    picture: Any = None
    known: Known | None = None
    shown: bool = True


def sample_decoder(
    config: RunConfig,
    model: DecoderModel,
    clip: Clip,
    params: Params,
    frozen: Params,
    request: DecoderRequest,
    keys: Key[Array, " b"],
    plan: Plan,
) -> Float[Array, "b h w 3"]:
    """Pictures in [-1, 1], of the decoder's size or of that of what the request gives.

    Guidance moves away from the picture without embedding and with the negative caption. With an
    inversion's plan the request's `noise` is the picture, and the result is x_T.
    """
    given = next((a for a in (request.noise, request.picture) if a is not None), None)
    if given is None and request.known is not None:
        given = request.known.picture
    height, width = (model.image_size,) * 2 if given is None else given.shape[1:3]
    shape = (height, width, 3)
    return draw(
        decoder_network(config, model, params, shape),
        _conditions(model, clip, frozen, request, (keys.shape[0], height, width)),
        start(plan, config, keys, shape, noise=request.noise, picture=request.picture),
        keys,
        config=config,
        plan=plan,
        known=request.known,
    )


def decoder_network(
    config: RunConfig, model: DecoderModel, params: Params, shape: tuple[int, ...]
) -> guidance.Network:
    """(x_t, t, condition) -> output, in tiles on canvases that are not of the decoder's size."""
    net = make_decoder(config, model)

    def network(x_t: Array, t: Array, condition: dict[str, Array]) -> Array:
        condition = dict(condition)
        if model.inpainting:
            x_t = jnp.concatenate([x_t, condition.pop("known")], axis=-1)
        return net.apply({"params": params}, x_t, t, **condition)

    side = model.image_size
    return network if shape[:2] == (side, side) else tiled(network, side, overlap=side // 2)


def _conditions(
    model: DecoderModel,
    clip: Clip,
    frozen: Params,
    request: DecoderRequest,
    canvas: tuple[int, int, int],
) -> Conditions:
    def arguments(given: Captions) -> dict[str, Array]:
        reads_clip_text = model.text_encoder == "clip"
        found = captions.caption_features(clip, frozen, given) if reads_clip_text else None
        return captions.arguments(
            model.null_text, given, found,
            describe=partial(condition, model, frozen, request.z),
            features_of=partial(features.text_features, clip, frozen),
        )  # fmt: skip

    cond, uncond = arguments(request.captions), arguments(request.negative)
    shared: dict[str, Array] = {}
    if model.inpainting:
        known = request.known if request.shown else None
        shared["known"] = (
            inpainting.nothing_known(*canvas)
            if known is None
            else inpainting.known_channels(known.picture, known.mask)
        )
    return Conditions(
        cond=cond | {"drop_image": request.drop_image} | shared,
        uncond=uncond | {"drop_image": jnp.ones_like(request.drop_image)} | shared,
        partial=uncond | {"drop_image": request.drop_image} | shared,
    )


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
        text = _text_arguments(model, tokens, found.embedding, found.states, found.mask)
    elif model.text_encoder == "trained":
        text = {"tokens": tokens}
    return {"image_embedding": scaled, **text}


def _text_arguments(
    model: DecoderModel, tokens: Array, pooled: Array, states: Array, mask: Array
) -> dict[str, Array]:
    if model.text_encoder == "clip":
        return {"text_embedding": pooled, "text_states": states, "text_mask": mask}
    return {"tokens": tokens} if model.text_encoder == "trained" else {}
