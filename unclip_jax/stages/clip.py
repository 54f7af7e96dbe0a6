"""Stage `clip`: the contrastive pair of towers whose embeddings everything else is built on."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, RunConfig
from unclip_jax.core import images, precision
from unclip_jax.models import Clip, clip_loss, siglip_loss
from unclip_jax.stages.stage import Batch, Diagnostics, Params, Stage

SIGLIP_SCALE, SIGLIP_BIAS = 2.302585, -10.0  # ln 10 and b of arXiv 2303.15343


def make_clip(model: ClipModel, compute: str) -> Clip:
    """The network of a config, computing in `compute` ("float32" or "bfloat16")."""
    sigmoid = model.loss == "sigmoid"
    start = {"initial_logit_scale": SIGLIP_SCALE, "initial_logit_bias": SIGLIP_BIAS}
    return Clip(
        image_size=model.image_size,
        patch_size=model.patch_size,
        vision_width=model.vision_width,
        vision_layers=model.vision_layers,
        vision_heads=model.vision_heads,
        text_width=model.text_width,
        text_layers=model.text_layers,
        text_heads=model.text_heads,
        embedding_dim=model.embedding_dim,
        context_length=model.context_length,
        activation=model.activation,
        dtype=precision.compute_dtype(compute),
        **(start if sigmoid else {}),
    )


def build(config: RunConfig, model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "clip"."""
    clip = make_clip(model, config.precision.compute)
    field = f"image_{model.image_size}"

    def init(key: Key[Array, ""]) -> Params:
        size = model.image_size
        pictures = jnp.zeros((1, size, size, 3))
        tokens = jnp.zeros((1, model.context_length), jnp.int32)
        return clip.init(key, pictures, tokens)["params"]

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        del frozen, keys  # nothing is frozen, nothing is drawn
        pictures = images.to_float(batch[field])
        image, text, scale, bias = clip.apply({"params": params}, pictures, batch["tokens"])
        if model.loss == "sigmoid":
            losses = siglip_loss(image, text, scale, bias)
        else:
            losses = clip_loss(image, text, scale)
        ones = jnp.ones_like(losses)
        hits = jnp.argmax(_normalised(image) @ _normalised(text).T, axis=1) == jnp.arange(
            len(image)
        )
        diagnostics = {
            "accuracy": (hits.astype(jnp.float32), ones),
            "logit_scale": (jnp.broadcast_to(jnp.exp(scale), losses.shape), ones),
        }
        return losses, diagnostics

    needs = BatchNeeds(image_sizes=(model.image_size,), context_length=model.context_length)
    return Stage("clip", needs, init, loss)


def _normalised(z: Float[Array, "b d"]) -> Float[Array, "b d"]:
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)
