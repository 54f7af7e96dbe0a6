"""Captions as networks are given them: tokens, whether they are dropped, and emphasis.

Emphasis weighs single tokens, 1 being as written. With s the hidden states of CLIP's text tower and
s_0 those of the empty caption,

    s' = s + (weight - 1) (s - s_0)             per token
    e' = e + shift                              the pooled embedding, once for the caption

so that a weight of 0 leaves the state that an empty caption has there, and weights of 1 change
nothing, bit for bit. How `shift` follows from the weights is in `generation.prompts`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unclip_jax.models import Clip, TextFeatures
from unclip_jax.stages import features
from unclip_jax.stages.conditions import Arguments, empty_captions
from unclip_jax.stages.stage import Params


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "dropped", "weights", "shift"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Captions:
    """A batch of captions; a pytree of arrays on the host or on devices.

    Attributes:
      tokens: token ids, int32 [B, L].
      dropped: True where there is no caption, bool [B].
      weights, shift: emphasis, float32 [B, L] and [B, E], or None.
    """

    tokens: Any
    dropped: Any
    weights: Any = None
    shift: Any = None


Describe = Callable[[Any, Any], Arguments]
"""(CLIP's features or None, tokens) -> a network's text arguments, nothing dropped."""


def arguments(
    null_text: str,
    captions: Captions,
    found: TextFeatures | None,
    *,
    describe: Describe,
    features_of: Callable[[Array], TextFeatures],
) -> Arguments:
    """A network's text arguments, without the captions that are dropped.

    Args:
      null_text: of the config: "learned", or "empty" for networks without a null of their own.
      found: CLIP's features of the captions; None for networks that don't read them.
      features_of: CLIP's features of tokens, asked for those of the empty caption.
    """
    if null_text == "learned":
        return describe(found, captions.tokens) | {"drop_text": captions.dropped}
    count, length = captions.tokens.shape
    tokens = jnp.where(captions.dropped[:, None], empty_captions(count, length), captions.tokens)
    if found is None:
        return describe(None, tokens)
    empty = features_of(empty_captions(1, length))

    def replace(null: Array, given: Array) -> Array:
        dropped = captions.dropped.reshape((-1,) + (1,) * (given.ndim - 1))
        return jnp.where(dropped, null.astype(given.dtype), given)

    return describe(jax.tree.map(replace, empty, found), tokens)


def caption_features(clip: Clip, frozen: Params, captions: Captions) -> TextFeatures:
    """What CLIP's text tower says about captions, emphasis applied."""
    found = features.text_features(clip, frozen, captions.tokens)
    if captions.weights is None:
        return found
    empty = features.text_features(clip, frozen, empty_captions(1, captions.tokens.shape[1]))
    extra = captions.weights[:, : found.states.shape[1], None] - 1
    states = found.states + extra * (found.states - empty.states)
    return found._replace(
        states=states.astype(found.states.dtype), embedding=found.embedding + captions.shift
    )
