"""A plain folder of pictures as a shard: no tars, for small sets.

Files with one name but another extension are a sample (`cat.jpg`, `cat.txt`, `cat.json`). Captions
may instead stand in a table `metadata.jsonl` or `metadata.csv` with columns `file_name` and `text`,
as Hugging Face's imagefolder has it. Samples are ordered by name.
"""

import csv
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.catalog import Members
from unclip_jax.data.embeddings import SideCar
from unclip_jax.data.index import Summary, empty
from unclip_jax.data.keys import IMAGE_EXTENSIONS
from unclip_jax.data.storage import ShardError
from unclip_jax.errors import UserError

_TABLES = ("metadata.jsonl", "metadata.csv")
_BESIDE = ("txt", "json")


@dataclass(frozen=True)
class FolderSample:
    """Field -> file, and the caption if a table gives it."""

    key: str
    files: tuple[tuple[str, str], ...]
    caption: str | None

    @property
    def fields(self) -> set[str]:
        names = {field for field, _ in self.files} | (
            {"txt"} if self.caption is not None else set()
        )
        blank = {f for f, path in self.files if os.path.getsize(path) == 0}
        return names | {empty(field) for field in blank} | self._empty_caption()

    def _empty_caption(self) -> set[str]:
        return {empty("txt")} if self.caption == "" else set()

    def read(self) -> Members:
        members = {field: memoryview(Path(path).read_bytes()) for field, path in self.files}
        if self.caption is not None:
            members["txt"] = memoryview(self.caption.encode())
        return members


@dataclass(frozen=True)
class FolderShard:
    """The samples of a folder, listed once when it is opened."""

    path: str
    summary: Summary
    samples: tuple[FolderSample, ...]

    @property
    def is_local(self) -> bool:
        return True

    @property
    def cache_path(self) -> str | None:
        return None

    def masks(self) -> NDArray[np.uint64]:
        return np.array([_mask(s, self.summary.fields) for s in self.samples], np.uint64)

    def read(self, ordinal: int) -> tuple[str, Members]:
        sample = self.samples[ordinal]
        try:
            return sample.key, sample.read()
        except OSError as error:
            raise ShardError(f"{self.path}: {sample.key} cannot be read: {error}") from error

    def side_car(self, kind: str) -> SideCar:
        raise UserError(
            f"{self.path}: a folder has no stored {kind} embeddings; make shards of it with "
            "`unclip data convert`"
        )


def holds_pictures(path: str | Path) -> bool:
    """Whether this is a folder of pictures rather than of shards."""
    path = Path(path)
    return path.is_dir() and not any(path.glob("*.tar")) and next(_pictures(path), None) is not None


def open_folder(path: str | Path) -> FolderShard:
    """Lists a folder of pictures and those below it. Raises UserError if it has none."""
    samples = list_folder(path)
    names = tuple(sorted(set().union(*(sample.fields for sample in samples))))
    masks = Counter(_mask(sample, names) for sample in samples)
    identity = json.dumps([[s.key, s.caption, [_identity(f) for f in s.files]] for s in samples])
    size = sum(os.path.getsize(file) for sample in samples for _, file in sample.files)
    summary = Summary(size, 0, len(samples), names, dict(masks), crc=zlib.crc32(identity.encode()))
    return FolderShard(str(path), summary, tuple(samples))


def list_folder(path: str | Path) -> list[FolderSample]:
    """Returns the samples of a folder, ordered by name."""
    root = Path(path)
    captions = _captions(root)
    samples = []
    for picture in sorted(_pictures(root)):
        name = picture.relative_to(root).as_posix()
        files = [(picture.suffix[1:].lower(), str(picture))]
        caption = captions.get(name)
        for field in _BESIDE:
            beside = picture.with_suffix(f".{field}")
            if beside.exists() and not (field == "txt" and caption is not None):
                files.append((field, str(beside)))
        samples.append(FolderSample(name, tuple(files), caption))
    if not samples:
        raise UserError(f"{root}: no pictures here ({', '.join(IMAGE_EXTENSIONS)})")
    return samples


def _pictures(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix[1:].lower() in IMAGE_EXTENSIONS and not hidden:
            yield path


def _captions(root: Path) -> dict[str, str]:
    """Returns file name -> caption from the folder's table, if it has one."""
    table = next((root / name for name in _TABLES if (root / name).exists()), None)
    if table is None:
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        if table.suffix == ".csv":
            rows = list(csv.DictReader(file))
        else:
            rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) and {"file_name", "text"} <= set(row) for row in rows):
        raise UserError(f"{table}: every row needs the columns file_name and text")
    return {row["file_name"]: row["text"] for row in rows}


def _mask(sample: FolderSample, names: tuple[str, ...]) -> int:
    own = sample.fields
    return sum(1 << bit for bit, name in enumerate(names) if name in own)


def _identity(file: tuple[str, str]) -> tuple[str, int]:
    return file[0], os.path.getsize(file[1])
