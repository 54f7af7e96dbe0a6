"""Captions: where they come from, mended bytes, choice among several."""

import json

import pytest

from unclip_jax.data.captions import choose_caption, decode_text, read_captions
from unclip_jax.data.fields import BadSample, BatchFields


@pytest.mark.parametrize(
    ("content", "text", "mended"),
    [
        (b"a cat", "a cat", False),
        ("naïve �".encode(), "naïve �", False),
        (b"\xef\xbb\xbfa cat", "a cat", True),
        (b"a\0 cat", "a cat", True),
        (b"na\xefve", "na\ufffdve", True),
        (b"", "", False),
    ],
)
def test_decode_text(content, text, mended):
    assert decode_text(content) == (text, mended)


def test_sources_in_order():
    members = {
        "txt": b"from txt",
        "json": json.dumps({"caption": "from json", "many": ["one", "two", 3], "n": 1}).encode(),
    }
    assert read_captions(members, ("txt", "json:caption")) == (["from txt"], False)
    assert read_captions(members, ("json:caption", "txt"))[0] == ["from json"]
    assert read_captions(members, ("json:many",))[0] == ["one", "two"]
    assert read_captions(members, ("json:n", "txt"))[0] == ["from txt"]
    assert read_captions({**members, "json": b"{bad"}, ("json:caption", "txt"))[0] == ["from txt"]
    with pytest.raises(BadSample, match="caption_missing"):
        read_captions(members, ("text", "json:other"))


def test_choice():
    first = BatchFields(context_length=8)
    drawn = BatchFields(context_length=8, caption_choice="random")
    assert choose_caption(["a", "b"], first, 1) == "a"
    assert [choose_caption(["a", "b"], drawn, i) for i in range(3)] == ["a", "b", "a"]


def test_empty_captions():
    with pytest.raises(BadSample, match="caption_empty"):
        choose_caption([" \n&nbsp;"], BatchFields(context_length=8), 0)
    keep = BatchFields(context_length=8, empty_caption="keep")
    assert choose_caption([" "], keep, 0) == " "
