"""What others have published beside shards: how many samples, and where these begin.

* `00000_stats.json` of img2dataset: "successes" is the number of samples in the tar;
* `sizes.json` in the folder, as open_clip reads it: file name -> samples;
* `00000.tar.idx` of Energon: uint64 little-endian offsets of the samples, then of the end.

With them a set of 40,000 shards opens without a byte of its tars being read. Which fields a sample
has is then only seen when it is read: one that lacks a wanted field counts as bad and is
substituted, where an index would have left it out of the epoch.
"""

import functools
import json
import zlib

import numpy as np

from unclip_jax.data import tar
from unclip_jax.data.index import UNSEEN, ShardIndex, Summary
from unclip_jax.data.storage import ShardError, exists, read_file, stat
from unclip_jax.errors import UserError


def published_summary(path: str) -> Summary:
    """Returns a summary from published counts. Raises UserError if there are none."""
    size, version = stat(path)
    count = _count(path)
    if count is None:
        stem = path.removesuffix(".tar")
        raise UserError(
            f"{path}: nobody says how many samples it has ({stem}_stats.json, sizes.json or "
            f"{path}.idx); index it with `unclip data index`"
        )
    identity = zlib.crc32(f"published {count} {size}".encode())
    return Summary(size, version, count, (UNSEEN,), {1: count}, {}, identity)


def published_index(path: str, summary: Summary) -> ShardIndex | None:
    """Returns the samples' places from `.tar.idx`, or None if there is none."""
    content = read_file(f"{path}.idx")
    if content is None:
        return None
    offsets = np.frombuffer(content, "<u8")
    wrong = np.any(offsets % tar.BLOCK) or np.any(np.diff(offsets.astype(np.int64)) <= 0)
    if len(offsets) != summary.samples + 1 or wrong or offsets[-1] > summary.tar_bytes:
        raise ShardError(f"{path}.idx: is not the index of a tar of {summary.samples} samples")
    masks = np.ones(summary.samples, np.uint64)
    return ShardIndex(summary, (offsets // tar.BLOCK).astype(np.uint32), masks)


def _count(path: str) -> int | None:
    statistics = _json(f"{path.removesuffix('.tar')}_stats.json")
    if statistics is not None and "successes" in statistics:
        return int(statistics["successes"])
    folder, slash, name = path.rpartition("/")
    listed = f"{folder}{slash}sizes.json"
    sizes = _sizes(listed, stat(listed)) if exists(listed) else None
    if sizes is not None and name in sizes:
        return int(sizes[name])
    offsets = read_file(f"{path}.idx")
    return None if offsets is None else len(offsets) // 8 - 1


@functools.lru_cache(maxsize=64)
def _sizes(path: str, version: tuple[int, int]) -> dict | None:
    """The file of a folder, read once for all its shards; `version` tells it from a later one."""
    del version
    return _json(path)


def _json(path: str) -> dict | None:
    content = read_file(path)
    if content is None:
        return None
    try:
        values = json.loads(content)
    except ValueError:
        raise UserError(f"{path}: is not json; mend it or remove it") from None
    return values if isinstance(values, dict) else None
