"""What the frozen CLIP says about a batch: computed here, or read from the batch if stored.

`frozen` holds {"clip": parameters, "statistics": {"mean": [D], "std": [D]}}.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unclip_jax.config import RunConfig
from unclip_jax.core import images
from unclip_jax.errors import UserError
from unclip_jax.models import Clip, TextFeatures
from unclip_jax.models.text_tower import token_mask
from unclip_jax.stages.embedding import Statistics
from unclip_jax.stages.stage import Batch, Params, Stage


def image_embedding(clip: Clip, frozen: Params, batch: Batch) -> Float[Array, "b d"]:
    """Raw image embeddings: stored ones if the batch has them, else CLIP's, without gradient."""
    if "image_embedding" in batch:
        return batch["image_embedding"]
    if "vision" not in frozen["clip"]:
        raise UserError(
            "this CLIP has no image tower, so it can't embed the training pictures: import it with "
            "--image-encoder, or train on stored embeddings (--config.data.embeddings=stored)"
        )
    pictures = images.to_float(batch[f"image_{clip.image_size}"])
    z = clip.apply({"params": frozen["clip"]}, pictures, method="encode_image")
    return jax.lax.stop_gradient(z)


def text_features(clip: Clip, frozen: Params, tokens: Int[Array, "b l"]) -> TextFeatures:
    """Text embedding, states and mask of CLIP's text tower, without gradient."""
    tokens = cut(tokens, clip.context_length, clip.eot_id)
    features = clip.apply({"params": frozen["clip"]}, tokens, method="encode_text")
    return jax.lax.stop_gradient(features)


def batch_text(clip: Clip, frozen: Params, batch: Batch) -> TextFeatures:
    """Features of a batch's captions: stored ones if it has them, else those of `text_features`.

    A stage that trains its own text encoder does not ask for stored states, and gets none.
    """
    if "text_embedding" not in batch:
        return text_features(clip, frozen, batch["tokens"])
    tokens = cut(batch["tokens"], clip.context_length, clip.eot_id)
    mask = token_mask(tokens, clip.eot_id)
    none = jnp.zeros((*tokens.shape, 0), jnp.float32)
    states = batch.get("text_states", none).astype(jnp.float32)
    return TextFeatures(batch["text_embedding"], states, mask)


def stored_text(config: RunConfig, text_encoder: str) -> tuple[str, ...]:
    """What a stage reads of CLIP's stored text features: no states if it has its own encoder."""
    if config.data.text_features == "computed":
        return ()
    return ("text", "text_states") if text_encoder == "clip" else ("text",)


def image_tower(config: RunConfig) -> tuple[str, ...]:
    """("vision",) if a stage has its image embeddings computed."""
    return () if config.data.embeddings == "stored" else ("vision",)


def text_tower(config: RunConfig, null_text: str) -> tuple[str, ...]:
    """("text",) if a stage that reads captions through CLIP has any of them computed.

    Without a learned null caption that of the empty one always is.
    """
    stored = config.data.text_features == "stored"
    return () if stored and null_text == "learned" else ("text",)


def towers_in_use(config: RunConfig, stage: Stage, clip: Params) -> Params:
    """A frozen CLIP without the towers that a training run does not read: they need no memory.

    Projections and scales stay with whichever tower is left: the network asks for all of them.
    """
    preview = config.train.preview
    draws = preview.prompts or (preview.examples and config.data.validation)
    wanted = stage.towers + (stage.drawing_towers if draws else ())
    unread = {"vision", "text"} - set(wanted) if wanted else clip.keys()
    return {name: value for name, value in clip.items() if name not in unread}


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
