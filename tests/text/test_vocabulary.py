"""The tables that the encoder keeps inside: used by a plain byte-pair encoding, they give its ids.

That they are the published ones, byte for byte, is checked in tests/oracles/test_tokenizer.py.
"""

import itertools

import pytest

from unclip_jax.text import clean, tokenize
from unclip_jax.text.vocabulary import merges, vocabulary


def encode_word(word):
    """Merges the pair of lowest rank until no pair is left (Sennrich et al. 2016)."""
    ranks = {pair: i for i, pair in enumerate(merges())}
    ids = {token: i for i, token in enumerate(vocabulary())}
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [b for b in range(256) if b not in order]
    parts = [vocabulary()[order.index(b)] for b in word.encode()]
    parts[-1] += "</w>"
    while True:
        pairs = [
            (ranks[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in ranks
        ]
        if not pairs:
            return [ids[p] for p in parts]
        _, i = min(pairs)
        parts[i : i + 2] = ["".join(parts[i : i + 2])]


@pytest.mark.parametrize(
    "text", ["heart", "antidisestablishmentarianism", "!", "😀", "café", "日本語"]
)
def test_the_tables_give_the_encoders_ids(text):
    ids = tokenize([text], 77)[0]
    assert encode_word(clean(text)) == list(ids[1 : list(ids).index(49407)])


def test_every_token_is_there_once():
    tokens = vocabulary()
    assert len(tokens) == len(set(tokens)) == 49408
    assert tokens[:2] == ("!", '"')
    assert tokens[256] == "!</w>"
    assert tokens[-2:] == ("<|startoftext|>", "<|endoftext|>")


def test_every_merge_makes_the_next_token():
    assert [a + b for a, b in merges()] == list(vocabulary()[512:49406])
