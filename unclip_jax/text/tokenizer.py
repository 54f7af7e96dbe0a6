"""CLIP's byte-pair encoding: 49,408 ids, of which the last two are start and end of text.

The vocabulary (48,894 merges) and the encoder come with `instant-clip-tokenizer`, written in Rust.
Its words are split by CLIP's pattern, but case-sensitively, while CLIP's ignores case. On clean
text that differs for two code points of all of Unicode: U+0345 (combining iota, a letter when case
is ignored) and U+017F (long s, also from the ligature U+FB05) after an apostrophe. In texts with
these the mark counts as punctuation and the long s starts a word; all others get CLIP's ids.
"""

import functools
from collections.abc import Sequence

import numpy as np
from instant_clip_tokenizer import Tokenizer
from jaxtyping import Int

from unclip_jax.text.cleaning import clean

VOCAB_SIZE = 49408
START_OF_TEXT = 49406
END_OF_TEXT = 49407
_MIN_CONTEXT = 3  # start, one token, end: what the encoder accepts


@functools.cache
def _encoder() -> Tokenizer:
    return Tokenizer()


def tokenize(texts: Sequence[str], context_length: int = 77) -> Int[np.ndarray, "N L"]:
    """Encodes captions as CLIP's text encoder wants them.

    Args:
      texts: N captions in any form; they are cleaned here.
      context_length: L >= 3, the row length. Longer texts are cut and keep the end token.

    Returns:
      int32 [N, L]: start (49406), the text's ids, end (49407), zeros.
    """
    if isinstance(texts, str):
        raise TypeError("tokenize takes a sequence of captions, not one string")
    if context_length < _MIN_CONTEXT:
        raise ValueError(f"context_length is {context_length}; it must be at least {_MIN_CONTEXT}")
    if not texts:
        return np.zeros((0, context_length), np.int32)
    cleaned = [clean(text) for text in texts]
    return _encoder().tokenize_batch(cleaned, context_length=context_length).astype(np.int32)


def decode_ids(ids: Sequence[int]) -> str:
    """The text of token ids; a space where a word ends, U+FFFD where bytes are no UTF-8."""
    return _encoder().decode(list(ids))


def detokenize(tokens: Int[np.ndarray, "N L"]) -> list[str]:
    """Returns the lower-case text of each row, without the special tokens: labels for pictures."""
    texts = []
    for row in np.asarray(tokens):
        end = np.flatnonzero(row == END_OF_TEXT)
        words = row[: end[0]] if end.size else row
        texts.append(_encoder().decode([int(t) for t in words if t != START_OF_TEXT]).strip())
    return texts
