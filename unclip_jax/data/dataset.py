"""A data set: shards whose samples are numbered 0 … N-1, in the order of the shards.

The list of samples is fixed when the data set is opened: a sample that lacks a wanted field is left
out by its index's mask, so every run over the set knows its length. What can only be seen by
decoding is found later and substituted (`assembly.py`).
"""

import bisect
import dataclasses
import functools
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from unclip_jax.data.catalog import Members, Shard
from unclip_jax.data.embeddings import Provenance, SideCar, check_keys, check_side_cars, probed
from unclip_jax.data.fields import BatchFields, stored_name
from unclip_jax.data.filters import keep_mask
from unclip_jax.data.sources import Counts, open_shards
from unclip_jax.data.statistics import Moments, moments
from unclip_jax.data.threads import each
from unclip_jax.errors import UserError

_MAX_MISSING = 0.05


def open_dataset(
    shards: str | Sequence[str],
    fields: BatchFields,
    *,
    where: Sequence[str] = (),
    index_dir: str | None = None,
    counts: Counts = "indexed",
    skip_missing: bool = False,
) -> "Dataset":
    """Opens webdataset shards, or another source: a folder of pictures, a clip-retrieval folder,
    a prepared set (`tfds:DIR`), generated shapes (`shapes:COUNT`).

    Args:
      shards: paths, globs, braces (`'data/{000..099}.tar'`), folders; see `expand_shards`.
      fields: what batches will hold.
      where: filters on the samples' json, e.g. "aesthetic >= 5"; a sample must pass all.
      index_dir: where indexes are kept if not beside the shards (read-only data).
      counts: "published" takes the shards' numbers of samples from what lies beside them (see
        `published.py`) and looks into a shard when it is first read: a large set on a bucket is
        open at once, but cannot be filtered.
      skip_missing: leaves out shards that are not there or empty. The fingerprint tells.

    Raises:
      UserError: shards are missing, empty or compressed; more than 5 % of the samples lack a wanted
        field; embeddings are missing or do not belong to these shards or to each other.
    """
    opened = open_shards(shards, index_dir, counts=counts, skip_missing=skip_missing)
    dataset = Dataset(opened, fields)
    _check_missing(dataset)
    if where and counts == "published":
        raise UserError("filters look into every sample; use counts 'indexed' with them")
    if where:
        keeps = each(lambda shard: np.packbits(keep_mask(shard, where)), opened, "filter")
        dataset = Dataset(opened, fields, tuple(keeps))
        if not len(dataset):
            raise UserError(f"no sample of {shards!r} passes {' and '.join(where)}")
    for kind in fields.embeddings:
        check_side_cars(each(_side_car_of(kind), opened, f"{kind} embeddings"), kind)
        for shard in probed(opened):
            check_keys(shard.side_car(kind), shard.read)
    return dataset


def _side_car_of(kind: str) -> Callable[[Shard], SideCar]:
    return lambda shard: shard.side_car(kind)


def concatenate(datasets: Sequence["Dataset"]) -> "Dataset":
    """Returns one data set of several with the same fields. Raises UserError if they differ."""
    fields = datasets[0].fields
    if any(dataset.fields != fields for dataset in datasets):
        raise UserError("data sets that are joined must be opened with the same fields")
    for kind in fields.embeddings:
        check_side_cars([dataset.shards[0].side_car(kind) for dataset in datasets], kind)
    shards = tuple(shard for dataset in datasets for shard in dataset.shards)
    keeps = tuple(keep for dataset in datasets for keep in dataset.packed_keeps())
    everything = not any(dataset.is_filtered for dataset in datasets)
    return Dataset(shards, fields, () if everything else keeps)


class Dataset:
    """Numbered samples of some shards; `len()` of them, read by number.

    Attributes:
      shards: the tars, in order.
      fields: what batches hold.
      counts: int64 [shards], samples of each that have the wanted fields.
      fingerprint: digest of the sample list; equal for copies of the data, whatever their folder.
    """

    def __init__(
        self,
        shards: tuple[Shard, ...],
        fields: BatchFields,
        keeps: tuple[NDArray[np.uint8], ...] = (),
    ):
        self.shards = shards
        self.fields = fields
        self._keeps = keeps  # packed bits of the samples that passed the filters
        numbers = range(len(shards))
        self.counts = np.array([self._count(number) for number in numbers], np.int64)
        self.fingerprint = _fingerprint(shards, self.counts, keeps)
        self._ends = np.cumsum(self.counts)
        self._end_list = self._ends.tolist()  # for bisect: faster than NumPy for one number
        self._ordinals = functools.lru_cache(maxsize=4096)(self._load_ordinals)
        self._side_car = functools.lru_cache(maxsize=4096)(self._open_side_car)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"Dataset({len(self)} samples in {len(self.shards)} shards)"

    @property
    def is_local(self) -> bool:
        return all(shard.is_local for shard in self.shards)

    @property
    def is_filtered(self) -> bool:
        return bool(self._keeps)

    def packed_keeps(self) -> tuple[NDArray[np.uint8], ...]:
        """Returns which samples of each shard passed the filters, as packed bits."""
        if self._keeps:
            return self._keeps
        return tuple(np.packbits(np.ones(shard.summary.samples, bool)) for shard in self.shards)

    def select(self, numbers: Sequence[int]) -> "Dataset":
        """Returns the data set of some of the shards."""
        keeps = tuple(self._keeps[number] for number in numbers) if self._keeps else ()
        return Dataset(tuple(self.shards[number] for number in numbers), self.fields, keeps)

    def uncut(self) -> "Dataset":
        """Returns the same samples with whole pictures."""
        fields = dataclasses.replace(self.fields, window=None)
        return Dataset(self.shards, fields, self._keeps)

    def ordinals(self, number: int) -> NDArray[np.int64]:
        """Returns the ordinals in the tar of shard `number`'s samples."""
        return self._ordinals(number)

    def locate(self, sample: int) -> tuple[int, int]:
        """Returns (shard number, ordinal in the tar) of a sample."""
        number = bisect.bisect_right(self._end_list, sample)
        before = self._end_list[number - 1] if number else 0
        return number, int(self._ordinals(number)[sample - before])

    def read(self, sample: int) -> tuple[str, Members]:
        """Returns (key, field -> bytes) of a sample."""
        number, ordinal = self.locate(sample)
        return self.shards[number].read(ordinal)

    def embedding_rows(self, kind: str, samples: Int[NDArray, "n"]) -> Float[np.ndarray, "n D"]:
        """Returns the embeddings of samples, flat; rows of NaN or zeros are missing ones."""
        shape, dtype = self.specs()[stored_name(kind)]
        out = np.empty((len(samples), math.prod(shape)), dtype)
        numbers = np.searchsorted(self._ends, samples, "right")
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            within = samples[here] - (self._ends[number] - self.counts[number])
            out[here] = self._side_car(kind, number).rows[self._ordinals(number)[within]]
        return out

    def provenance(self, kind: str) -> Provenance:
        """Returns which model made the `kind` embeddings; open_dataset checked that all agree."""
        return self._side_car(kind, 0).provenance

    def statistics(self, kind: str) -> Moments:
        """Returns mean, deviation and more of all embeddings of the shards."""
        return moments(self._side_car(kind, number).rows for number in range(len(self.shards)))

    def specs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns the shape (without the batch axis) and dtype of each array of a batch."""
        fields = self.fields
        specs: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        for size in fields.image_sizes:
            side = fields.window.side if fields.window else size
            specs[f"image_{size}"] = ((side, side, 3), np.dtype(np.uint8))
        if fields.context_length is not None:
            specs["tokens"] = ((fields.context_length,), np.dtype(np.int32))
        for kind in fields.embeddings:
            dtype = np.float16 if kind == "text_states" else np.float32
            specs[stored_name(kind)] = (self._side_car(kind, 0).shape, np.dtype(dtype))
        return specs

    def __reduce__(self):
        return Dataset, (self.shards, self.fields, self._keeps)

    def _count(self, number: int) -> int:
        if self._keeps:
            return len(self._load_ordinals(number))
        summary = self.shards[number].summary
        kept = (n for mask, n in summary.masks.items() if self.fields.keeps(summary.fields, mask))
        return sum(kept)

    def _load_ordinals(self, number: int) -> NDArray[np.int64]:
        """Returns the ordinals in the tar of a shard's kept samples."""
        shard = self.shards[number]
        summary = shard.summary
        usable = {mask: self.fields.keeps(summary.fields, mask) for mask in summary.masks}
        if all(usable.values()):
            keep = np.ones(summary.samples, bool)
        else:
            keep = np.array([usable[mask] for mask in shard.masks().tolist()], bool)
        if self._keeps:
            keep &= np.unpackbits(self._keeps[number], count=summary.samples).astype(bool)
        return np.flatnonzero(keep)

    def _open_side_car(self, kind: str, number: int) -> SideCar:
        return self.shards[number].side_car(kind)


def _fingerprint(shards: tuple[Shard, ...], counts: NDArray[np.int64], keeps) -> str:
    lines: list = [
        [Path(shard.path).name, shard.summary.tar_bytes, shard.summary.crc, kept]
        for shard, kept in zip(shards, counts.tolist(), strict=True)
    ]
    lines += [zlib.crc32(keep) for keep in keeps]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _check_missing(dataset: Dataset) -> None:
    total = sum(shard.summary.samples for shard in dataset.shards)
    missing = total - len(dataset)
    if len(dataset) and missing <= _MAX_MISSING * total:
        return
    names = sorted({n for shard in dataset.shards for n in shard.summary.fields if ":" not in n})
    raise UserError(
        f"{dataset.shards[0].path}: {missing} of {total} samples lack a wanted field (an image, or "
        f"one of {', '.join(dataset.fields.caption_fields)}); the shards hold: {', '.join(names)}"
    )
