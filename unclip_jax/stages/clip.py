"""Stage `clip`: the contrastive pair of towers whose embeddings everything else is built on.

Every pair of a batch is a negative of every other, however the batch lies: `train.accumulate` saves
the memory of activations (GradCache), `ring_loss` that of the logits, and neither changes the loss.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Key

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel, RunConfig
from unclip_jax.core import images, precision
from unclip_jax.errors import UserError
from unclip_jax.models import (
    Clip,
    clamp_logit_scale,
    clip_loss,
    encode_in_chunks,
    retrieval_hits,
    ring_clip_loss,
    ring_retrieval_hits,
    ring_siglip_loss,
    siglip_loss,
)
from unclip_jax.parallel import BATCH_AXES
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
        vision_mlp_dim=model.vision_mlp_dim,
        text_mlp_dim=model.text_mlp_dim,
        context_length=model.context_length,
        activation=model.activation,
        scan_layers=model.scan_layers,
        remat=model.remat,
        dtype=precision.compute_dtype(compute),
        **(start if sigmoid else {}),
    )


def build(config: RunConfig, model: ClipModel) -> Stage:
    """The stage of a config whose `stage` is "clip"."""
    clip = make_clip(model, config.precision.compute)
    field = f"image_{model.image_size}"

    def init(key: Key[Array, ""]) -> Params:
        tokens = jnp.zeros((1, model.context_length), jnp.int32)
        if model.towers == "text":
            return clip.init(key, tokens, method="encode_text")["params"]
        pictures = jnp.zeros((1, model.image_size, model.image_size, 3))
        return clip.init(key, pictures, tokens)["params"]

    def loss(
        params: Params, frozen: Params, batch: Batch, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], Diagnostics]:
        del frozen, keys  # nothing is frozen, nothing is drawn
        if model.towers != "both":
            raise UserError("a CLIP without its image tower can't be trained")

        def encode(part: Batch) -> tuple[Array, Array]:
            pictures = images.to_float(part[field])
            return clip.apply({"params": params}, pictures, part["tokens"])[:2]

        inputs = {name: batch[name] for name in (field, "tokens")}
        if config.train.accumulate == 1:
            image, text = encode(inputs)
        else:
            image, text = encode_in_chunks(encode, inputs, config.train.accumulate)
        losses, hits = contrast(model, image, text, params, batch.get("valid"))
        ones = jnp.ones_like(losses)
        diagnostics = {
            "accuracy": (hits.astype(jnp.float32), ones),
            "logit_scale": (jnp.broadcast_to(jnp.exp(params["logit_scale"]), losses.shape), ones),
        }
        return losses, diagnostics

    needs = BatchNeeds(image_sizes=(model.image_size,), context_length=model.context_length)
    return Stage("clip", needs, init, loss, constrain=clamp_logit_scale, whole_batch=True)


def contrast(
    model: ClipModel,
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    params: Params,
    valid: Bool[Array, " b"] | None = None,
) -> tuple[Float[Array, " b"], Bool[Array, " b"]]:
    """(loss of each pair, whether the image finds its text), by the configured loss and form.

    Args:
      valid: False for rows that pad a batch: in the losses they are nobody's negatives.
    """
    scalars = [params["logit_scale"]]
    whole, ring = clip_loss, ring_clip_loss
    if model.loss == "sigmoid":
        whole, ring = siglip_loss, ring_siglip_loss  # type: ignore[assignment]
        scalars.append(params["logit_bias"])
    mesh = jax.sharding.get_abstract_mesh()
    by_hand = tuple(a for a in BATCH_AXES if a in mesh.manual_axes)  # inside a shard_map already
    axes = by_hand or tuple(a for a in BATCH_AXES if a in mesh.axis_names)
    if not (by_hand or (model.ring_loss and axes)):  # without a mesh there is no ring
        return whole(image, text, *scalars, valid=valid), retrieval_hits(image, text)

    def around(image: Array, text: Array, valid: Any, *scalars: Any) -> tuple[Array, Array]:
        hits = partial(ring_retrieval_hits, axis_name=axes)
        return ring(image, text, *scalars, axis_name=axes, valid=valid), hits(image, text)

    if by_hand:
        return around(image, text, valid, *scalars)
    part = PartitionSpec(axes)
    return jax.shard_map(
        around,
        in_specs=(part, part, part, *(PartitionSpec() for _ in scalars)),
        out_specs=(part, part),
        axis_names=set(axes),
    )(image, text, valid, *scalars)
