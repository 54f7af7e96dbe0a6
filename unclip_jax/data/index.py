"""Where each sample of a shard begins: built by one pass over the headers, kept beside the shard.

`<shard>.uidx` holds a JSON header (size and version of the tar, field names, what is wrong with the
shard) and then, for n samples, uint32 offsets [n + 1] in 512-byte blocks and uint64 masks
[n] of the fields each sample has (left out when all masks are equal). A shard whose size or mtime
differs from its index is indexed anew. Files are replaced by rename, so several hosts may build the
same index at once.
"""

import json
import logging
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unclip_jax.data import tar
from unclip_jax.data.files import replace_file
from unclip_jax.data.keys import split_name
from unclip_jax.data.storage import MissingShard, open_sequential, stat
from unclip_jax.errors import UserError

SUFFIX = ".uidx"
UNSEEN = "*"  # in place of the fields of a shard that nobody has looked into
_MAGIC = b"UNCLIPIX"
_FORMAT = 1
_MAX_FIELDS = 64
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
log = logging.getLogger(__name__)


def empty(name: str) -> str:
    """Returns the index's name for 'the field is there but has no bytes'."""
    return f"{name}:empty"


@dataclass(frozen=True)
class Summary:
    """The header of an index: all that is needed to plan a run, without the offsets.

    `version` is the shard's mtime in ns, or a digest of its etag. `masks` maps a bit mask over
    `fields` to its number of samples; `problems` counts what the scan found (duplicate_field,
    interleaved_key, truncated, lost_bytes).
    """

    tar_bytes: int
    version: int
    samples: int
    fields: tuple[str, ...]
    masks: dict[int, int]
    problems: dict[str, int] = field(default_factory=dict)
    crc: int = 0


@dataclass(frozen=True)
class ShardIndex:
    """Sample i of the shard is the bytes [512 * offsets[i], 512 * offsets[i + 1])."""

    summary: Summary
    offsets: np.ndarray  # uint32 [n + 1]
    masks: np.ndarray  # uint64 [n]

    def end(self, ordinal: int) -> int:
        """Returns the offset behind a sample."""
        return int(self.offsets[ordinal + 1]) * tar.BLOCK

    def span(self, ordinal: int) -> tuple[int, int]:
        """Returns (first byte, number of bytes) of a sample."""
        first, last = int(self.offsets[ordinal]), int(self.offsets[ordinal + 1])
        return first * tar.BLOCK, (last - first) * tar.BLOCK


def build_index(path: str | Path) -> ShardIndex:
    """Scans a shard's headers. Raises UserError for a missing, empty or compressed file."""
    path = str(path)
    size, version = stat(path)
    if size == 0:
        raise MissingShard(f"{path}: the shard is empty (0 bytes); remove it from the list")
    with open_sequential(path, size) as file:
        _refuse_compressed(path, file.read(2))
        return scan(file, size, version, path)


def scan(file, size: int, version: int, name: str) -> ShardIndex:
    """Builds the index of an open tar of `size` bytes."""
    scanner = tar.TarScanner(file, size)
    names: dict[str, int] = {}  # field name -> bit
    offsets: list[int] = []
    masks: list[int] = []
    problems: Counter[str] = Counter()
    seen: set[str] = set()
    current = None
    for member in scanner:
        split = split_name(member.name)
        if split is None:
            continue
        key, own = split
        if key != current:
            problems["interleaved_key"] += key in seen
            seen.add(key)
            offsets.append(member.start // tar.BLOCK)
            masks.append(0)
            current = key
        bit = 1 << (names[own] if own in names else _bit(names, own, name))
        if masks[-1] & bit:
            problems["duplicate_field"] += 1
            continue
        masks[-1] |= bit
        if member.size == 0:
            masks[-1] |= 1 << _bit(names, empty(own), name)
    if scanner.problem:
        problems["truncated"] = 1
        problems["lost_bytes"] = size - scanner.end
        log.warning("%s: %s; %d bytes lost", name, scanner.problem, size - scanner.end)
    offsets.append(scanner.end // tar.BLOCK)
    return _assemble(size, version, offsets, masks, names, +problems)


def load_summary(path: str | Path) -> Summary | None:
    """Returns the header of the index at `path`, or None if there is no valid one."""
    read = _read(Path(path), payload=False)
    return read[0] if read else None


def load_index(path: str | Path) -> ShardIndex | None:
    """Returns the index at `path`, or None if there is no valid one."""
    read = _read(Path(path), payload=True)
    if read is None:
        return None
    summary, content = read
    if zlib.crc32(content) != summary.crc:
        return None
    split = 4 * (summary.samples + 1)
    offsets = np.frombuffer(content[:split], "<u4")
    if len(summary.masks) > 1:
        masks = np.frombuffer(content[split:], "<u8")
    else:
        masks = np.full(summary.samples, next(iter(summary.masks), 0), np.uint64)
    return ShardIndex(summary, offsets, masks)


def save_index(index: ShardIndex, path: str | Path) -> None:
    """Writes the index by rename. Raises OSError where the folder cannot be written."""
    header = json.dumps(summary_to_json(index.summary), sort_keys=True).encode()
    start = _MAGIC + len(header).to_bytes(4, "little") + header
    replace_file(Path(path), start + _payload(index))


def is_current(summary: Summary, path: str | Path) -> bool:
    """Whether the shard still has the size and mtime that it was indexed with."""
    return stat(str(path)) == (summary.tar_bytes, summary.version)


def summary_to_json(summary: Summary) -> dict:
    """Returns the summary as plain values; `summary_from_json` reads it back."""
    masks = {str(mask): count for mask, count in summary.masks.items()}
    return {"format": _FORMAT, **vars(summary), "fields": list(summary.fields), "masks": masks}


def summary_from_json(values: dict) -> Summary | None:
    """Returns the summary, or None if it is of another format."""
    values = dict(values)
    if values.pop("format", None) != _FORMAT:
        return None
    values["fields"] = tuple(values["fields"])
    values["masks"] = {int(mask): count for mask, count in values["masks"].items()}
    return Summary(**values)


def _assemble(size, version, offsets, masks, names, problems) -> ShardIndex:
    masks = np.array(masks, np.uint64)
    values, counts = np.unique(masks, return_counts=True)
    summary = Summary(
        tar_bytes=size,
        version=version,
        samples=len(masks),
        fields=tuple(names),
        masks=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        problems=dict(problems),
    )
    index = ShardIndex(summary, np.array(offsets, np.uint32), masks)
    crc = zlib.crc32(_payload(index))
    return ShardIndex(Summary(**{**vars(summary), "crc": crc}), index.offsets, masks)


def _payload(index: ShardIndex) -> bytes:
    masks = index.masks.astype("<u8").tobytes() if len(index.summary.masks) > 1 else b""
    return index.offsets.astype("<u4").tobytes() + masks


def _read(path: Path, *, payload: bool) -> tuple[Summary, bytes] | None:
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            header = json.loads(file.read(int.from_bytes(file.read(4), "little")))
            content = file.read() if payload else b""
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    summary = summary_from_json(header)
    return None if summary is None else (summary, content)


def _bit(names: dict[str, int], name: str, shard: str) -> int:
    if name not in names and len(names) == _MAX_FIELDS:
        some = ", ".join(list(names)[:4])
        raise UserError(
            f"{shard}: more than {_MAX_FIELDS} different fields ({some}, …); a sample's key ends "
            "at the first dot of the file name, so rename the files to have no dot in their key"
        )
    return names.setdefault(name, len(names))


def _refuse_compressed(path: str, magic: bytes) -> None:
    if magic in _COMPRESSED:
        raise UserError(
            f"{path}: a {_COMPRESSED[magic]}-compressed tar cannot be read at random; "
            "decompress it, or rewrite it with `unclip data convert`"
        )
