"""A prepared tensorflow-datasets set as a shard, read without TensorFlow.

    tfds:DIR                                       the split "train", fields found by type
    tfds:DIR:SPLIT
    tfds:DIR:SPLIT?image=picture&caption=captions/text

DIR is what `download_and_prepare(file_format="array_record")` wrote (…/coco_captions/2014/1.1.0):
files of that format are read at random. A field is a path through nested features; a caption may be
a text or a list of texts. Each sample has members "jpg" or "png" (the encoded picture as stored),
"txt" (the first caption) and "json": {"caption": [all of them], …} with every other number and text
of the example, for filters and for `caption_fields=("json:caption",)`.

Needs `pip install 'unclip_jax[tfds]'`; TensorFlow is not needed.
"""

import functools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.catalog import Members
from unclip_jax.data.embeddings import SideCar
from unclip_jax.data.index import Summary
from unclip_jax.data.storage import ShardError
from unclip_jax.errors import UserError, did_you_mean

PREFIX = "tfds:"
_EXTENSIONS = {b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}


@dataclass(frozen=True)
class TfdsShard:
    """One split of a prepared data set."""

    folder: str
    split: str
    image: str
    caption: str
    summary: Summary

    @property
    def path(self) -> str:
        return f"{PREFIX}{self.folder}:{self.split}"

    @property
    def is_local(self) -> bool:
        return True

    @property
    def cache_path(self) -> str | None:
        return None

    def masks(self) -> NDArray[np.uint64]:
        return np.full(self.summary.samples, next(iter(self.summary.masks)), np.uint64)

    def read(self, ordinal: int) -> tuple[str, Members]:
        """Returns (number as key, field -> bytes) of an example."""
        try:
            example = _examples(self.folder, self.split)[ordinal]
        except (OSError, RuntimeError, ValueError) as error:
            raise ShardError(f"{self.path}: example {ordinal} cannot be read: {error}") from error
        picture = _at(example, self.image)
        captions = _texts(_at(example, self.caption))
        record = {name: value for name, value in _plain(example) if name != self.caption}
        members = {
            _EXTENSIONS.get(picture[:4], "jpg"): picture,
            "json": json.dumps({**record, "caption": captions}).encode(),
        }
        if captions:
            members["txt"] = captions[0].encode()
        return str(ordinal), {name: memoryview(content) for name, content in members.items()}

    def side_car(self, kind: str) -> SideCar:
        raise UserError(
            f"{self.path}: a prepared set has no stored {kind} embeddings; make shards of it with "
            "`unclip data convert`"
        )


def open_prepared(name: str) -> TfdsShard:
    """Opens `tfds:DIR[:SPLIT][?image=FIELD&caption=FIELD]`. Raises UserError."""
    place, _, options = name.removeprefix(PREFIX).partition("?")
    folder, _, split = place.partition(":")
    chosen = dict(option.partition("=")[::2] for option in options.split("&") if option)
    unknown = sorted(set(chosen) - {"image", "caption"})
    if unknown:
        raise UserError(f"{name}: {unknown[0]!r} is not one of image, caption")
    builder = _builder(folder)
    splits = builder.info.splits
    split = split or "train"
    if split not in splits:
        raise UserError(f"{folder}: no split {split!r}{did_you_mean(split, splits)}")
    kinds = dict(_kinds(builder.info.features))
    image = _field(name, "image", chosen, [f for f, kind in kinds.items() if kind == "Image"])
    caption = _field(name, "caption", chosen, [f for f, kind in kinds.items() if kind == "Text"])
    for field in (image, caption):
        if field not in kinds:
            raise UserError(f"{folder}: no feature {field!r}{did_you_mean(field, kinds)}")
    found = splits[split]
    facts = [builder.info.full_name, split, list(found.shard_lengths), image, caption]
    identity = zlib.crc32(json.dumps(facts).encode())
    count = found.num_examples
    fields = ("jpg", "txt", "json")
    summary = Summary(found.num_bytes, 0, count, fields, {0b111: count}, {}, identity)
    return TfdsShard(folder, split, image, caption, summary)


def _field(name: str, what: str, chosen: Mapping[str, str], found: list[str]) -> str:
    if what in chosen:
        return chosen[what]
    if len(found) != 1:
        have = f"{', '.join(found)} are" if found else "none is"
        raise UserError(f"{name}: which feature is the {what}? {have} there: add ?{what}=FEATURE")
    return found[0]


def _kinds(features: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields (path, name of the feature's type) for each leaf, by path."""
    inner = getattr(features, "feature", features)  # of a sequence
    if hasattr(inner, "items"):  # a group
        for name, feature in sorted(inner.items()):
            yield from _kinds(feature, f"{path}/{name}" if path else name)
    else:
        yield path, type(inner).__name__


@functools.lru_cache(maxsize=8)
def _examples(folder: str, split: str) -> Any:
    """The examples of a split; pictures stay encoded."""
    import tensorflow_datasets as tfds

    builder = _builder(folder)
    pictures = {
        path: tfds.decode.SkipDecoding()
        for path, k in _kinds(builder.info.features)
        if k == "Image"
    }
    decoders: dict[str, Any] = {}
    for path, decoder in pictures.items():
        *groups, leaf = path.split("/")
        place = decoders
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = decoder
    return builder.as_data_source(split, decoders=decoders)


@functools.lru_cache(maxsize=8)
def _builder(folder: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError("tfds: sources need: pip install 'unclip_jax[tfds]'") from None
    if not (Path(folder) / "dataset_info.json").exists():
        raise UserError(f"{folder}: no prepared data set here (dataset_info.json is missing)")
    builder = tfds.builder_from_directory(folder)
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise UserError(
            f"{folder}: was prepared as {file_format}, which cannot be read at random; prepare it "
            "with file_format='array_record'"
        )
    return builder


def _at(example: Any, path: str) -> Any:
    for part in path.split("/"):
        if isinstance(example, list):  # a sequence of groups
            example = [item[part] for item in example]
        else:
            example = example[part]
    return example


def _texts(value: Any) -> list[str]:
    if isinstance(value, bytes):
        return [value.decode("utf-8", "replace")]
    if isinstance(value, str):
        return [value]
    return [text for item in value for text in _texts(item)]


def _plain(example: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, value) for each number and text that json can hold."""
    for name, value in example.items():
        own = f"{path}/{name}" if path else name
        if isinstance(value, Mapping):
            yield from _plain(value, own)
        elif isinstance(value, np.generic) and value.dtype.kind in "biuf":
            yield own, value.item()
        elif isinstance(value, int | float | str):
            yield own, value
        elif isinstance(value, bytes) and len(value) < 1000 and value.isascii():
            yield own, value.decode()
