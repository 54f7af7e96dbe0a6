"""Conditioning dropout: which examples of a batch lose a condition, and what stands for a caption.

A network with a learned null caption is told which examples to use it for (`drop_text`). One
without, `null_text="empty"` as in karlo, is given the features of the caption "" instead; see
`captions.arguments`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from unclip_jax.core import rng
from unclip_jax.models.text_tower import EOT_ID

NULL_TEXTS = {"learned": "learned", "empty": "none"}  # of a config -> of a network
Arguments = dict[str, Array]


def flags(keys: Key[Array, " b"], name: str, probability: float) -> Bool[Array, " b"]:
    """True with the given probability, from each example's own key and the condition's name."""
    chance = jnp.float32(probability)
    return jax.vmap(jax.random.bernoulli, (0, None))(rng.fold_in_name(keys, name), chance)


def empty_captions(count: int, length: int) -> Int[Array, "count length"]:
    """The tokens of the caption "", as the tokenizer gives them: start, end, zeros."""
    row = jnp.zeros(length, jnp.int32).at[:2].set(jnp.array([EOT_ID - 1, EOT_ID], jnp.int32))
    return jnp.broadcast_to(row, (count, length))
