"""Shards and their indexes, made on first touch: what a run knows of its data before it starts.

Only the headers of the indexes are read when a data set is opened; the offsets of a shard are
loaded when the shard is first read, so a set of 40,000 shards opens in seconds.
"""

import contextlib
import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data import tar
from unclip_jax.data.chunks import CACHE, CHUNK
from unclip_jax.data.embeddings import (
    MEMBERS,
    SideCar,
    open_member_rows,
    open_side_car,
    side_car_path,
)
from unclip_jax.data.index import (
    SUFFIX,
    ShardIndex,
    Summary,
    build_index,
    is_current,
    load_index,
    load_summary,
    save_index,
)
from unclip_jax.data.keys import split_name
from unclip_jax.data.published import published_index, published_summary
from unclip_jax.data.storage import ShardError, exists, is_remote, read_range
from unclip_jax.errors import UserError

log = logging.getLogger(__name__)
Members = dict[str, memoryview]


class Shard(Protocol):
    """Samples that are kept together: what a Dataset needs of a tar, a folder, a set of arrays."""

    @property
    def path(self) -> str: ...

    @property
    def summary(self) -> Summary: ...

    @property
    def is_local(self) -> bool: ...

    @property
    def cache_path(self) -> str | None:
        """Where what is derived from the shard may be kept, as the start of a file name."""

    def masks(self) -> NDArray[np.uint64]:
        """Returns which of `summary.fields` each sample has, as bits [n]."""

    def read(self, ordinal: int) -> tuple[str, Members]:
        """Returns (key, field -> bytes). Raises ShardError."""

    def side_car(self, kind: str) -> SideCar:
        """Returns the embeddings of all n samples. Raises UserError."""


@dataclass(frozen=True)
class TarShard:
    """One tar, its summary, and its index if that could not be kept on disk."""

    path: str
    summary: Summary
    index_path: str
    memory: ShardIndex | None = None
    is_published: bool = False  # the summary is what others say of the tar

    @property
    def is_local(self) -> bool:
        return not is_remote(self.path)

    @property
    def cache_path(self) -> str | None:
        return None if self.memory or self.is_published else self.index_path

    @property
    def index(self) -> ShardIndex:
        if self.is_published:
            return _look_into(self.path, self.index_path, self.summary.samples)
        return self.memory or _load(self.path, self.index_path, self.summary.crc)

    def masks(self) -> NDArray[np.uint64]:
        return self.index.masks

    def read(self, ordinal: int) -> tuple[str, Members]:
        """Returns (key, field -> bytes) of a sample; of a repeated field, the first."""
        key, members = None, Members()
        try:
            for name, content in tar.parse_members(self._sample(ordinal)):
                split = split_name(name)
                if split is None:
                    continue
                key = split[0]
                members.setdefault(split[1], content)
        except tar.TarError as error:
            raise ShardError(f"{self.path}: sample {ordinal} is not as indexed: {error}") from error
        if key is None:
            raise ShardError(f"{self.path}: sample {ordinal} is not as indexed: no members")
        return key, members

    def side_car(self, kind: str) -> SideCar:
        names = [name for name in MEMBERS[kind] if name in self.summary.fields]
        if not names or exists(side_car_path(self.path, kind)):
            return open_side_car(self.path, self.summary, kind)
        return open_member_rows(
            self.path, self.summary.samples, functools.partial(self._member, names[0])
        )

    def _member(self, name: str, ordinal: int) -> memoryview | None:
        return self.read(ordinal)[1].get(name)

    def _sample(self, ordinal: int) -> memoryview:
        if self.is_local:
            return self._bytes(*self.index.span(ordinal))
        number = ordinal // CHUNK
        first, behind = number * CHUNK, min(number * CHUNK + CHUNK, self.summary.samples)
        start, end = self.index.span(first)[0], self.index.end(behind - 1)
        key = (self.path, self.summary.crc, number)
        chunk = CACHE.get(key, lambda: self._bytes(start, end - start))
        offset, length = self.index.span(ordinal)
        return chunk[offset - start : offset - start + length]

    def _bytes(self, offset: int, length: int) -> memoryview:
        size, version = self.summary.tar_bytes, self.summary.version
        return read_range(self.path, size, version, offset, length)


def published(path: str, index_dir: str | None = None) -> TarShard:
    """Returns a shard with the number of samples that is published beside it."""
    return TarShard(path, published_summary(path), _index_path(path, index_dir), is_published=True)


def summarise(
    path: str | Path,
    index_dir: str | None = None,
    *,
    rebuild: bool = False,
    known: Summary | None = None,
) -> TarShard:
    """Returns a shard with a current summary, building and saving its index where needed.

    `known` is a summary that may be current, from a manifest.

    Raises UserError for a shard that is missing, empty or compressed.
    """
    path = str(path)
    index_path = _index_path(path, index_dir)
    if not rebuild:
        summary = known or load_summary(index_path)
        if summary is not None and is_current(summary, path):
            return TarShard(path, summary, index_path)
    index = build_index(path)
    try:
        os.makedirs(os.path.dirname(index_path) or ".", exist_ok=True)
        save_index(index, index_path)
    except OSError as error:
        log.warning("%s: index is kept in memory only (%s); see index_dir", path, error)
        return TarShard(path, index.summary, index_path, index)
    return TarShard(path, index.summary, index_path)


@functools.lru_cache(maxsize=1024)
def _load(shard_path: str, index_path: str, crc: int) -> ShardIndex:
    index = load_index(index_path)
    if index is None or index.summary.crc != crc:
        raise ShardError(f"{index_path}: changed or vanished while {shard_path} is in use")
    return index


@functools.lru_cache(maxsize=1024)
def _look_into(path: str, index_path: str, samples: int) -> ShardIndex:
    """Returns the index of a shard of which only a published count was known."""
    index = published_index(path, published_summary(path)) or load_index(index_path)
    if index is None or not is_current(index.summary, path):
        index = build_index(path)
        with contextlib.suppress(OSError):  # read-only: it is in memory, for this process
            save_index(index, index_path)
    if index.summary.samples != samples:
        raise ShardError(
            f"{path}: has {index.summary.samples} samples, but {samples} are published; train "
            "with counts from an index (`unclip data index`)"
        )
    return index


def _index_path(path: str, index_dir: str | None) -> str:
    if index_dir is None:
        if is_remote(path):
            raise UserError(f"{path}: for remote shards name a local index_dir to keep indexes in")
        return path + SUFFIX
    name = path.replace("://", "_") if is_remote(path) else os.path.abspath(path)
    return os.path.join(index_dir, name.replace("/", "_").lstrip("_") + SUFFIX)
