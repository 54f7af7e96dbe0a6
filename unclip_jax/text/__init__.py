"""Captions to CLIP tokens: `clean` puts text in CLIP's canonical form, `tokenize` gives its ids."""

from unclip_jax.text.cleaning import clean
from unclip_jax.text.tokenizer import (
    END_OF_TEXT,
    START_OF_TEXT,
    VOCAB_SIZE,
    detokenize,
    tokenize,
)

__all__ = ["END_OF_TEXT", "START_OF_TEXT", "VOCAB_SIZE", "clean", "detokenize", "tokenize"]
