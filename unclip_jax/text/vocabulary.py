"""CLIP's vocabulary and merges as tables, for those who tokenize with another library.

The encoder that we use keeps them inside and only decodes ids. Decoding gives every token back:
the 256 bytes and their word-ending twins come first, in a known order; a token that cuts a UTF-8
character apart is decoded between bytes that complete it. The merge that made a token is the pair
that byte-pair encoding ends with when it may use the earlier merges only.

Written as in `bpe_simple_vocab_16e6` (Radford et al. 2021): each byte as a visible character, and
`</w>` where a word ends.
"""

import functools
import itertools

from unclip_jax.text.tokenizer import START_OF_TEXT, decode_ids

WORD_END = "</w>"
UNREADABLE = "\ufffd"
_BYTES = 256
# Bytes that complete a character that a token begins or ends within.
_BEFORE = (b"", b"\xc3", b"\xe2", b"\xe2\x80", b"\xf1", b"\xf1\x80", b"\xf1\x80\x80")
_AFTER = (b"", *(bytes([last]) * n for last in (0x80, 0xBF) for n in (1, 2, 3)))

Merge = tuple[str, str]


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Every token, by id."""
    single = [_visible(bytes([b])) for b in _byte_order()]
    merged = [_token(i) for i in range(2 * _BYTES, START_OF_TEXT)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    return (*single, *(s + WORD_END for s in single), *merged, *special)


@functools.cache
def merges() -> tuple[Merge, ...]:
    """The pairs that make the tokens from 512 on, in the order in which they are tried."""
    tokens = vocabulary()
    rank = {token: i for i, token in enumerate(tokens)}
    return tuple(_origin(tokens[i], i, rank) for i in range(2 * _BYTES, START_OF_TEXT))


@functools.cache
def _byte_order() -> list[int]:
    """Bytes in the order of their ids: the visible ones of Latin-1 first."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return visible + [b for b in range(_BYTES) if b not in visible]


@functools.cache
def _characters() -> dict[int, str]:
    """byte -> the visible character that stands for it; the invisible ones start at U+0100."""
    order = _byte_order()
    visible = _BYTES - 68
    return {b: chr(b if i < visible else _BYTES + i - visible) for i, b in enumerate(order)}


def _visible(data: bytes) -> str:
    return "".join(_characters()[b] for b in data)


def _token(number: int) -> str:
    data = _decoded(number)
    # No merged token has a space in it: the one at the end says that the word ends.
    return _visible(data.removesuffix(b" ")) + (WORD_END if data.endswith(b" ") else "")


def _decoded(number: int) -> bytes:
    plain = decode_ids([number])
    if UNREADABLE not in plain:
        return plain.encode()
    for before, after in itertools.product(_BEFORE, _AFTER):
        ids = [*map(_byte_order().index, before), number, *map(_byte_order().index, after)]
        text = decode_ids(ids)
        if UNREADABLE not in text:
            data = text.encode()
            return data[len(before) : len(data) - len(after)]
    return plain.encode()  # the web is full of texts that hold U+FFFD itself, so tokens do too


def _origin(token: str, number: int, rank: dict[str, int]) -> Merge:
    parts = list(token.removesuffix(WORD_END))
    parts[-1] += WORD_END if token.endswith(WORD_END) else ""
    while len(parts) > 2:
        pairs = [rank.get(a + b, number) for a, b in itertools.pairwise(parts)]
        best = min(pairs)
        assert best < number, token
        merged: list[str] = []
        for part in parts:
            if merged and rank.get(merged[-1] + part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return parts[0], parts[1]
