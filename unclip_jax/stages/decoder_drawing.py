"""Drawing pictures with the decoder: from an embedding, captions, noise, or a part of a picture."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unclip_jax.config.schema import DecoderModel, RunConfig
from unclip_jax.diffusion import Known, guidance
from unclip_jax.models import Clip
from unclip_jax.stages import captions, inpainting
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.decoder_network import conditioning, make_decoder
from unclip_jax.stages.sampling import Conditions, Plan, draw, start
from unclip_jax.stages.stage import Params
from unclip_jax.stages.tiles import tiled


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
        return conditioning(model, clip, frozen, request.z, given, found)

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
