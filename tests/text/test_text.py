"""Cleaning and token ids: against ids recorded from open_clip, and against hand-written facts."""

import json
import pathlib

import numpy as np
import pytest

from unclip_jax.text import END_OF_TEXT, START_OF_TEXT, VOCAB_SIZE, clean, detokenize, tokenize

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "clip_tokens.json"


def test_ids_are_those_of_open_clip():
    recorded = json.loads(VECTORS.read_text())
    tokens = tokenize(recorded["texts"])
    assert tokens.dtype == np.int32
    assert len(recorded["texts"]) > 150
    for row, ids in zip(tokens, recorded["ids"], strict=True):
        np.testing.assert_array_equal(row[: len(ids)], ids)
        assert not row[len(ids) :].any()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  A  Cat\n", "a cat"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("&#39;quoted&amp;#39;", "'quoted'"),
        ("donâ€™t", "don't"),
        ("ﬁne", "fine"),
        ("A\u2028B\u3000C\u00a0D\x07", "a b c d"),
        ("\ufeffcat", "cat"),
        ("\ud83d", "\ufffd"),
        ("", ""),
    ],
)
def test_clean(raw, expected):
    assert clean(raw) == expected


def test_row_layout():
    tokens = tokenize(["a cat", "", "cat " * 100], context_length=8)
    assert tokens.shape == (3, 8)
    np.testing.assert_array_equal(tokens[1], [START_OF_TEXT, END_OF_TEXT] + [0] * 6)
    assert tokens[0, 0] == START_OF_TEXT
    assert tokens[0, 3] == END_OF_TEXT
    assert tokens[2, -1] == END_OF_TEXT  # kept when the text is cut
    assert len(set(tokens[2, 1:-1])) == 1
    assert VOCAB_SIZE == END_OF_TEXT + 1


def test_no_texts():
    assert tokenize([], 77).shape == (0, 77)


def test_one_string_is_refused():
    with pytest.raises(TypeError, match="sequence"):
        tokenize("a cat")


def test_too_short_rows_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        tokenize(["a cat"], context_length=2)


def test_detokenize():
    assert detokenize(tokenize(["A photo of a cat", "", "x " * 200], 16)) == [
        "a photo of a cat",
        "",
        " ".join("x" * 14),
    ]
