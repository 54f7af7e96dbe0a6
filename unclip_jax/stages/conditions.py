"""Conditioning dropout: which examples of a batch lose a condition."""

import jax
from jaxtyping import Array, Bool, Key

from unclip_jax.core import rng


def flags(keys: Key[Array, " b"], name: str, probability: float) -> Bool[Array, " b"]:
    """True with the given probability, from each example's own key and the condition's name."""
    return jax.vmap(jax.random.bernoulli, (0, None))(rng.fold_in_name(keys, name), probability)
