"""What the frozen CLIP says about a batch: computed here, or read from the batch if stored.

`frozen` holds {"clip": parameters, "statistics": {"mean": [D], "std": [D]}}.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unclip_jax.core import images
from unclip_jax.models import Clip, TextFeatures
from unclip_jax.stages.embedding import Statistics
from unclip_jax.stages.stage import Batch, Params


def image_embedding(clip: Clip, frozen: Params, batch: Batch) -> Float[Array, "b d"]:
    """Raw image embeddings: stored ones if the batch has them, else CLIP's, without gradient."""
    if "image_embedding" in batch:
        return batch["image_embedding"]
    pictures = images.to_float(batch[f"image_{clip.image_size}"])
    z = clip.apply({"params": frozen["clip"]}, pictures, method="encode_image")
    return jax.lax.stop_gradient(z)


def text_features(clip: Clip, frozen: Params, tokens: Int[Array, "b l"]) -> TextFeatures:
    """Text embedding, states and mask of CLIP's text tower, without gradient."""
    tokens = cut(tokens, clip.context_length, clip.eot_id)
    features = clip.apply({"params": frozen["clip"]}, tokens, method="encode_text")
    return jax.lax.stop_gradient(features)


def cut(tokens: Int[Array, "b l"], length: int, eot_id: int) -> Int[Array, "b k"]:
    """The first `length` tokens; a text that is cut keeps its end, as the tokenizer would.

    A stage with a longer text encoder of its own (256 tokens in the paper) shares its tokens with
    CLIP through this.
    """
    if tokens.shape[1] <= length:
        return tokens
    head = tokens[:, :length]
    ended = jnp.any(head == eot_id, axis=1)
    return head.at[:, -1].set(jnp.where(ended, head[:, -1], eot_id))


def statistics(frozen: Params) -> Statistics | None:
    """The statistics of the training set's image embeddings, if there are any."""
    found = frozen.get("statistics")
    return None if found is None else Statistics(found["mean"], found["std"])
