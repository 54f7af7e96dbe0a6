"""What a pipeline compiles: one program per stage, sampling settings and batch shape.

Weights, keys and guidance scale are arguments; configs are static. The jitted functions live here,
not in a pipeline, so that pipelines over the same configs share them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from unclip_jax.config.schema import ClipModel, RunConfig, Sampling
from unclip_jax.core import images, rng
from unclip_jax.models import Clip, resize_for_clip
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.decoder import sample_decoder
from unclip_jax.stages.prior import sample_prior
from unclip_jax.stages.stage import Params
from unclip_jax.stages.upsampler import sample_upsampler


@partial(jax.jit, static_argnames=("prompts", "per_prompt"))
def image_keys(root: Key[Array, ""], prompts: int, per_prompt: int) -> Key[Array, " n"]:
    """Keys [prompts * per_prompt], prompt by prompt; see `pipeline` for what they are made of."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    numbers = fold(root, jnp.arange(per_prompt))
    return jax.vmap(lambda i: jax.vmap(jax.random.fold_in, (0, None))(numbers, i))(
        jnp.arange(prompts)
    ).reshape(-1)


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


@partial(jax.jit, static_argnames=("config", "clip_model", "sampling"))
def draw_embeddings(
    params: Params,
    frozen: Params,
    guidance_scale: Float[Array, ""],
    tokens: Int[Array, "b l"],
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    clip_model: ClipModel,
    sampling: Sampling,
) -> Float[Array, "b d"]:
    """Image embeddings for captions, in CLIP's own space."""
    model: Any = config.model
    return sample_prior(
        config, model, clip_model, params, frozen, tokens,
        rng.fold_in_name(keys, "prior"), sampling=sampling, guidance_scale=guidance_scale,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("config", "clip_model", "sampling"))
def decode(
    params: Params,
    frozen: Params,
    guidance_scale: Float[Array, ""],
    z: Float[Array, "b d"],
    tokens: Int[Array, "b l"],
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    clip_model: ClipModel,
    sampling: Sampling,
) -> UInt8[Array, "b s s 3"]:
    """Pictures of image embeddings and captions."""
    clip = make_clip(clip_model, config.precision.compute)
    model: Any = config.model
    drawn = sample_decoder(
        config, model, clip, params, frozen, z, tokens,
        rng.fold_in_name(keys, "decoder"), sampling=sampling, guidance_scale=guidance_scale,
    )  # fmt: skip
    return images.to_uint8(drawn)


@partial(jax.jit, static_argnames=("config", "sampling"))
def upsample(
    params: Params,
    pictures: UInt8[Array, "b l l 3"],
    keys: Key[Array, " b"],
    *,
    config: RunConfig,
    sampling: Sampling,
) -> UInt8[Array, "b s s 3"]:
    """Larger pictures. Stages hand on 8-bit pictures, so a saved one can be sharpened later."""
    model: Any = config.model
    name = f"upsampler {model.image_size}"
    drawn = sample_upsampler(
        config, model, params, images.to_float(pictures),
        rng.fold_in_name(keys, name), sampling=sampling,
    )  # fmt: skip
    return images.to_uint8(drawn)


def _clip(config: RunConfig) -> Clip:
    model: Any = config.model
    return make_clip(model, config.precision.compute)
