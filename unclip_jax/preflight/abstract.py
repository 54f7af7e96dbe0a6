"""The shapes of what a stage's loss is given, so that it can be traced without data or weights."""

from typing import Any

import jax
import jax.numpy as jnp

from unclip_jax.config import RunConfig
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel
from unclip_jax.stages.clip import make_clip

Shapes = dict[str, Any]


def abstract_batch(needs: BatchNeeds, rows: int, clip: ClipModel | None = None) -> Shapes:
    """A batch of `rows` examples; `clip` gives the width of stored embeddings."""
    shapes: Shapes = {
        name: jax.ShapeDtypeStruct((rows, side, side, 3), jnp.uint8)
        for name, side in needs.sides().items()
    }
    if needs.context_length:
        shapes["tokens"] = jax.ShapeDtypeStruct((rows, needs.context_length), jnp.int32)
    for kind in needs.embeddings:
        assert clip is not None
        if kind == "text_states":
            states = (rows, clip.context_length, clip.text_width)
            shapes[kind] = jax.ShapeDtypeStruct(states, jnp.float16)
        else:
            shape = (rows, clip.embedding_dim)
            shapes[f"{kind}_embedding"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return shapes


def abstract_frozen(config: RunConfig, clip: ClipModel | None) -> Shapes:
    """What a stage reads and does not train: CLIP's weights and its embeddings' statistics."""
    if clip is None:
        return {}
    statistic = jax.ShapeDtypeStruct((clip.embedding_dim,), jnp.float32)
    return {
        "clip": jax.eval_shape(
            lambda key: make_clip(clip, config.precision.compute).init(
                key,
                jnp.zeros((1, clip.image_size, clip.image_size, 3)),
                jnp.zeros((1, clip.context_length), jnp.int32),
            )["params"],
            jax.random.key(0),
        ),
        "statistics": {"mean": statistic, "std": statistic},
    }
