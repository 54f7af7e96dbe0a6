"""What a pipeline compiles: one program per stage and batch shape, or one for the whole path.

Weights, keys and plans (step tables, guidance scales, bounds) are arguments; configs are static.
The jitted functions live here, not in a pipeline, so that pipelines over the same configs share
them.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8, UInt32

from unclip_jax.config.schema import ClipModel, RunConfig
from unclip_jax.core import images, rng
from unclip_jax.diffusion import Known
from unclip_jax.models import Clip, fewer_multiplications, resize_for_clip
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.decoder_drawing import DecoderRequest, sample_decoder
from unclip_jax.stages.prior import sample_prior
from unclip_jax.stages.sampling import Plan
from unclip_jax.stages.stage import Params
from unclip_jax.stages.upsampler import sample_upsampler

KeyData = UInt32[Array, "n k"]
"""Random keys as `jax.random.key_data` gives them."""


class Setup(NamedTuple):
    """What a stage brings to a program, beside the batch.

    Attributes:
      params: its weights.
      plan: how it draws.
      frozen: {"clip": …, "statistics": …}, for stages that CLIP conditions.
    """

    params: Params
    plan: Plan
    frozen: Params = {}  # noqa: RUF012 - never written to


@jax.jit
def image_keys(
    seed: UInt32[Array, ""], images: Int[Array, " n"], prompts: Int[Array, " n"]
) -> KeyData:
    """The keys of images; see `keys` for what they are made of."""
    root = jax.random.key(seed)
    fold = jax.vmap(jax.random.fold_in)
    keys = fold(jax.vmap(jax.random.fold_in, (None, 0))(root, images), prompts)
    return jax.random.key_data(keys)


@partial(jax.jit, static_argnames="config")
def embed_images(
    params: Params, pictures: UInt8[Array, "b h w 3"], *, config: RunConfig
) -> Float[Array, "b d"]:
    """Raw CLIP embeddings of pictures of any size."""
    clip = _clip(config)
    fitting = resize_for_clip(images.to_float(pictures), clip.image_size)
    z: Any = clip.apply({"params": params}, fitting, method="encode_image")
    return z


@partial(jax.jit, static_argnames="config")
def embed_texts(
    params: Params, tokens: Int[Array, "b l"], *, config: RunConfig
) -> Float[Array, "b d"]:
    """Raw CLIP embeddings of captions."""
    found: Any = _clip(config).apply({"params": params}, tokens, method="encode_text")
    return found.embedding


@partial(jax.jit, static_argnames=("config", "clip_model"))
def draw_embeddings(
    setup: Setup,
    captions: Captions,
    negative: Captions,
    keys: KeyData,
    *,
    config: RunConfig,
    clip_model: ClipModel,
) -> Float[Array, "b d"]:
    """Image embeddings for captions, in CLIP's own space."""
    model: Any = config.model
    return sample_prior(
        config, model, clip_model, setup.params, setup.frozen, captions, negative,
        _stream(keys, "prior"), setup.plan,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("config", "clip_model"))
@fewer_multiplications()
def decode(
    setup: Setup,
    request: DecoderRequest,
    keys: KeyData,
    *,
    config: RunConfig,
    clip_model: ClipModel,
) -> UInt8[Array, "b h w 3"]:
    """Pictures; those of the request are in 8 bit here."""
    return images.to_uint8(_decode(setup, request, keys, config, clip_model))


@partial(jax.jit, static_argnames=("config", "clip_model"))
@fewer_multiplications()
def invert(
    setup: Setup,
    request: DecoderRequest,
    keys: KeyData,
    *,
    config: RunConfig,
    clip_model: ClipModel,
) -> Float[Array, "b h w 3"]:
    """The x_T of pictures, which the request has in the place of its `noise`, in 8 bit."""
    pictures: Any = request.noise
    request = dataclasses.replace(request, noise=images.to_float(pictures))
    return _decode(setup, request, keys, config, clip_model)


@partial(jax.jit, static_argnames="config")
@fewer_multiplications()
def upsample(
    setup: Setup,
    pictures: UInt8[Array, "b l k 3"],
    known: Known | None,
    keys: KeyData,
    *,
    config: RunConfig,
) -> UInt8[Array, "b s r 3"]:
    """Larger pictures. Stages hand on 8-bit pictures, so a saved one can be sharpened later."""
    model: Any = config.model
    drawn = sample_upsampler(
        config, model, setup.params, images.to_float(pictures),
        _stream(keys, f"upsampler {model.image_size}"), setup.plan, _known(known),
    )  # fmt: skip
    return images.to_uint8(drawn)


@partial(jax.jit, static_argnames=("configs", "clip_model"))
def generate(
    setups: Mapping[str, Setup],
    texts: Mapping[str, tuple[Captions, Captions]],
    keys: KeyData,
    *,
    configs: tuple[tuple[str, RunConfig], ...],
    clip_model: ClipModel,
) -> dict[str, Array]:
    """The whole path in one program: {"prior": [B, D], "decoder": pictures, "upsampler": …}.

    Args:
      setups: of all stages by name.
      texts: (captions, negative captions) of prior and decoder.
      configs: (name, config) of the stages in the order they run.
    """
    found: dict[str, Array] = {}
    drawn: Any = None
    for name, config in configs:
        setup = setups[name]
        if name == "prior":
            drawn = draw_embeddings(setup, *texts[name], keys, config=config, clip_model=clip_model)
        elif name == "decoder":
            request = DecoderRequest(drawn, jnp.zeros(keys.shape[:1], bool), *texts[name])
            drawn = decode(setup, request, keys, config=config, clip_model=clip_model)
        else:
            drawn = upsample(setup, drawn, None, keys, config=config)
        found[name] = drawn
    return found


def _decode(
    setup: Setup,
    request: DecoderRequest,
    keys: KeyData,
    config: RunConfig,
    clip_model: ClipModel,
) -> Array:
    clip = make_clip(clip_model, config.precision.compute)
    model: Any = config.model
    picture = request.picture
    request = dataclasses.replace(
        request,
        picture=None if picture is None else images.to_float(picture),
        known=_known(request.known),
    )
    return sample_decoder(
        config, model, clip, setup.params, setup.frozen, request,
        _stream(keys, "decoder"), setup.plan,
    )  # fmt: skip


def _stream(keys: KeyData, name: str) -> Key[Array, " n"]:
    return rng.fold_in_name(jax.random.wrap_key_data(keys), name)


def _known(known: Known | None) -> Known | None:
    """The known picture, 8 bit outside, in the range of networks."""
    return None if known is None else Known(images.to_float(known.picture), known.mask)


def _clip(config: RunConfig) -> Clip:
    model: Any = config.model
    return make_clip(model, config.precision.compute)
