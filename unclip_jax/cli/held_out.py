"""Held-out captioned pictures for `unclip eval`: some samples of each split, with their labels.

Style and concept are read from the samples' json ("style", "concept", as `unclip data emoji` writes
them). Without them every picture is of one style, and each caption is a concept of its own.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from unclip_jax import data
from unclip_jax.data.assembly import Assembler
from unclip_jax.errors import UserError

Pictures = Mapping[int, UInt8[np.ndarray, "n s s 3"]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """N captioned pictures, in the order of the splits.

    Attributes:
      captions, styles, concepts, splits: N labels each.
      pictures: {side: uint8 [N, side, side, 3]}.
      fingerprints: {split: fingerprint of its data set}.
    """

    captions: list[str]
    styles: list[str]
    concepts: list[str]
    splits: list[str]
    pictures: Pictures
    fingerprints: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class _Split:
    name: str
    fingerprint: str
    captions: list[str]
    records: list[dict[str, Any]]
    pictures: Pictures


def read_held_out(
    folder: pathlib.Path,
    splits: Sequence[str],
    *,
    sizes: Sequence[int],
    limit: int | None,
    seed: int,
) -> HeldOut:
    """Reads up to `limit` samples of each split, chosen at random by the seed.

    Args:
      folder: holds shards named SPLIT-*.tar.
      sizes: sides of the pictures that are wanted.

    Raises:
      UserError: no such shards, or a split without a sample that can be read.
    """
    fields = data.BatchFields(image_sizes=tuple(sorted(set(sizes))))
    parts = [_read_split(folder, name, fields, limit, seed) for name in dict.fromkeys(splits)]
    rows = [(p, c, record) for p in parts for c, record in zip(p.captions, p.records, strict=True)]
    return HeldOut(
        captions=[caption for _, caption, _ in rows],
        styles=[str(record.get("style", "")) for *_, record in rows],
        concepts=[str(record.get("concept", caption)) for _, caption, record in rows],
        splits=[part.name for part, *_ in rows],
        pictures={
            size: np.concatenate([part.pictures[size] for part in parts])
            for size in fields.image_sizes
        },
        fingerprints={part.name: part.fingerprint for part in parts},
    )


def _read_split(
    folder: pathlib.Path, name: str, fields: data.BatchFields, limit: int | None, seed: int
) -> _Split:
    dataset = data.open_dataset(str(folder / f"{name}-*.tar"), fields)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:limit])
    arrays, _ = Assembler(dataset).exact_rows(chosen)
    captions = [data.caption(dataset, int(sample)) for sample in chosen]
    good = np.flatnonzero(arrays["valid"] & [bool(caption) for caption in captions])
    bad = len(chosen) - len(good)
    if not len(good):
        raise UserError(f"split {name!r}: none of {bad} samples has a picture and a caption")
    if bad:
        print(f"{name}: {bad} of {len(chosen)} samples can't be read", file=sys.stderr)
    return _Split(
        name=name,
        fingerprint=dataset.fingerprint,
        captions=[captions[i] for i in good],
        records=[_json(dataset, int(chosen[i])) for i in good],
        pictures={size: arrays[f"image_{size}"][good] for size in fields.image_sizes},
    )


def _json(dataset: data.Dataset, sample: int) -> dict[str, Any]:
    """The sample's json; {} if it has none, or none that can be read."""
    _, members = dataset.read(sample)
    try:
        record = json.loads(bytes(members.get("json", b"{}")))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
