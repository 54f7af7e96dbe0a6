"""Indexes of shards, made on first touch: what a run needs to know of its shards before it starts.

Only the headers of the indexes are read when a data set is opened; the offsets of a shard are
loaded when the shard is first read, so a set of 40,000 shards opens in seconds.
"""

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One tar, its summary, and its index if that could not be kept on disk."""

    path: str
    summary: Summary
    index_path: str
    index: ShardIndex | None = None


def summarise(path: str | Path, index_dir: str | None = None, *, rebuild: bool = False) -> Shard:
    """Returns a shard with a current summary, building and saving its index where needed.

    Raises UserError for a shard that is missing, empty or compressed.
    """
    path = str(path)
    index_path = _index_path(path, index_dir)
    summary = None if rebuild else load_summary(index_path)
    if summary is not None and is_current(summary, path):
        return Shard(path, summary, index_path)
    index = build_index(path)
    try:
        os.makedirs(os.path.dirname(index_path) or ".", exist_ok=True)
        save_index(index, index_path)
    except OSError as error:
        log.warning("%s: index is kept in memory only (%s); see index_dir", path, error)
        return Shard(path, index.summary, index_path, index)
    return Shard(path, index.summary, index_path)


@functools.lru_cache(maxsize=1024)
def offsets_of(shard_path: str, index_path: str, crc: int) -> ShardIndex:
    """Returns the index that belongs to a summary with this checksum."""
    index = load_index(index_path)
    if index is None or index.summary.crc != crc:
        raise RuntimeError(f"{index_path}: changed or vanished while {shard_path} is in use")
    return index


def shard_index(shard: Shard) -> ShardIndex:
    """Returns the offsets of a shard, from memory or from disk."""
    return shard.index or offsets_of(shard.path, shard.index_path, shard.summary.crc)


def _index_path(path: str, index_dir: str | None) -> str:
    if index_dir is None:
        return path + SUFFIX
    return os.path.join(index_dir, os.path.abspath(path).replace(os.sep, "_").lstrip("_") + SUFFIX)
