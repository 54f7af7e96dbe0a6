"""The caption of a sample: which member holds it, how its bytes become text, which of several."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from unclip_jax.data.fields import BadSample, BatchFields
from unclip_jax.text import clean

if TYPE_CHECKING:
    from unclip_jax.data.dataset import Dataset

_BOM = "\ufeff"


def read_captions(members: Mapping[str, memoryview], fields: tuple[str, ...]) -> tuple[list, bool]:
    """Returns (captions, whether the bytes had to be mended).

    A missing or unreadable json holds no caption; the next of `fields` is tried. Raises BadSample
    (caption_missing) when none of them holds one.
    """
    for name in fields:
        member, _, key = name.partition(":")
        if member not in members:
            continue
        text, mended = decode_text(bytes(members[member]))
        if not key:
            return [text], mended
        captions = _from_json(text, key)
        if captions:
            return captions, mended
    raise BadSample("caption_missing", f"none of {', '.join(fields)}")


def caption(dataset: "Dataset", sample: int) -> str:
    """The first caption of a sample, as written; "" if it has none."""
    _, members = dataset.read(sample)
    try:
        return read_captions(members, dataset.fields.caption_fields)[0][0]
    except BadSample:
        return ""


def decode_text(content: bytes) -> tuple[str, bool]:
    """Returns (text, whether it was not clean UTF-8): bad bytes become U+FFFD, BOM and NUL go."""
    text = content.decode("utf-8", "replace")
    mended = text.removeprefix(_BOM).replace("\0", "")
    return mended, mended != text or ("\ufffd" in text and b"\xef\xbf\xbd" not in content)


def choose_caption(captions: list[str], fields: BatchFields, draw: int) -> str:
    """Returns one caption, drawn or the first. Raises BadSample if it is empty and may not be."""
    caption = captions[draw % len(captions)] if fields.caption_choice == "random" else captions[0]
    if fields.empty_caption == "substitute" and not clean(caption):
        raise BadSample("caption_empty")
    return caption


def _from_json(text: str, key: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
