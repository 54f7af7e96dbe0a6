"""Weighted phrases: what is parsed, which tokens they weigh, and what is left unchanged."""

import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation.prompts import Phrase, encode, parse, plain
from unclip_jax.text import tokenize

LENGTH = 16


def embed_texts(texts):
    """An embedding that tells how often each letter occurs."""
    return np.array(
        [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float
    )


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a red heart", [Phrase("a red heart")]),
        ("a (red:1.5) heart", [Phrase("a "), Phrase("red", 1.5), Phrase(" heart")]),
        ("(red heart:.5)", [Phrase("red heart", 0.5)]),
        ("a (red) heart", [Phrase("a (red) heart")]),
        ("flag: (a:b)", [Phrase("flag: (a:b)")]),
        ("", []),
    ],
)
def test_phrases(prompt, phrases):
    assert parse(prompt) == phrases


def test_a_prompt_without_its_weights():
    assert plain("a (red:1.5) heart") == "a red heart"


def test_prompts_without_weights_are_tokenized_as_they_are():
    found = encode(["a red heart", None], LENGTH)
    np.testing.assert_array_equal(found.tokens, tokenize(["a red heart", ""], LENGTH))
    np.testing.assert_array_equal(found.dropped, [False, True])
    assert found.weights is None


def test_weights_lie_on_the_phrase_and_the_tokens_are_those_of_the_plain_prompt():
    found = encode(["a (big red:1.5) heart", "a tree"], LENGTH, embed_texts=embed_texts)
    np.testing.assert_array_equal(found.tokens, tokenize(["a big red heart", "a tree"], LENGTH))
    np.testing.assert_array_equal(found.weights[0, :6], [1, 1, 1.5, 1.5, 1, 1])
    np.testing.assert_array_equal(found.weights[1], np.ones(LENGTH))


def test_the_shift_is_the_phrases_own_part_of_the_pooled_embedding():
    found = encode(["a (red:1.5) heart (tree:0)"], LENGTH, embed_texts=embed_texts)
    wanted = 0.5 * embed_texts(["red"]) - 1.0 * embed_texts(["tree"])
    np.testing.assert_allclose(found.shift, wanted)


def test_long_prompts_keep_their_end():
    found = encode(["(one two three four five six:2) seven eight"], 6, embed_texts=embed_texts)
    np.testing.assert_array_equal(found.tokens, tokenize(["one two three four five six"], 6))
    np.testing.assert_array_equal(found.weights, [[1, 2, 2, 2, 2, 1]])


def test_text_encoders_of_their_own_take_no_weights():
    with pytest.raises(UserError, match=r"\(phrase:weight\)"):
        encode(["a (red:1.5) heart"], LENGTH)
