"""Folders of clip-retrieval as shards: embeddings and captions without pictures, for the prior.

`img_emb/img_emb_N.npy`, `text_emb/text_emb_N.npy` and `metadata/metadata_N.parquet` (column
`caption`) have one row a sample, in one order; a number N is one shard. Rows have unit norm.
The files do not say which CLIP made them: a `provenance.json` with "model", "model_hash" and
"normalised" in the folder does, and without it the hash is "unknown".
"""

import functools
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.catalog import Members
from unclip_jax.data.embeddings import SideCar, folder_provenance
from unclip_jax.data.index import Summary
from unclip_jax.data.rows_file import open_rows
from unclip_jax.data.storage import ShardError
from unclip_jax.errors import UserError

_FOLDERS = {"image": ("img_emb", "img_emb"), "text": ("text_emb", "text_emb")}
_NUMBER = re.compile(r"img_emb_(\d+)\.npy")


@dataclass(frozen=True)
class RetrievalShard:
    """The rows of one number N of a clip-retrieval folder."""

    folder: str
    number: str
    summary: Summary

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.number}"

    @property
    def is_local(self) -> bool:
        return True

    @property
    def cache_path(self) -> str | None:
        return None

    def masks(self) -> NDArray[np.uint64]:
        return np.ones(self.summary.samples, np.uint64)

    def read(self, ordinal: int) -> tuple[str, Members]:
        captions = _captions(_metadata(self.folder, self.number), self.summary.samples)
        return str(ordinal), {"txt": memoryview((captions[ordinal] or "").encode())}

    def side_car(self, kind: str) -> SideCar:
        path = _array(self.folder, self.number, kind)
        rows = open_rows(str(path))
        if len(rows) != self.summary.samples:
            raise UserError(f"{path}: {len(rows)} rows, but {self.summary.samples} captions")
        return SideCar(str(path), folder_provenance(self.folder, "clip-retrieval"), rows)


def is_retrieval_folder(path: str | Path) -> bool:
    return (Path(path) / "img_emb").is_dir() and (Path(path) / "metadata").is_dir()


def open_retrieval_folder(path: str | Path) -> tuple[RetrievalShard, ...]:
    """Returns the shards of a folder. Raises UserError if files are missing."""
    numbers = [
        match.group(1)
        for file in (Path(path) / "img_emb").iterdir()
        if (match := _NUMBER.fullmatch(file.name))
    ]
    if not numbers:
        raise UserError(f"{path}/img_emb: no img_emb_N.npy here")
    return tuple(_open(str(path), number) for number in sorted(numbers, key=lambda n: (len(n), n)))


def _open(folder: str, number: str) -> RetrievalShard:
    metadata = _metadata(folder, number)
    if not metadata.exists():
        raise UserError(f"{metadata}: missing, but {_array(folder, number, 'image').name} is there")
    table = _parquet().ParquetFile(metadata)
    if "caption" not in table.schema_arrow.names:
        names = ", ".join(table.schema_arrow.names)
        raise UserError(f"{metadata}: no column 'caption' (there are: {names})")
    count, size = table.metadata.num_rows, metadata.stat().st_size
    table.close()
    identity = zlib.crc32(f"{number} {count} {size}".encode())
    return RetrievalShard(
        folder, number, Summary(size, 0, count, ("txt",), {1: count}, {}, identity)
    )


@functools.lru_cache(maxsize=8)
def _captions(metadata: Path, count: int) -> list[str | None]:
    """Captions of one shard; about 100 bytes each, and a shard has up to a million."""
    captions = _parquet().read_table(metadata, columns=["caption"]).column(0).to_pylist()
    if len(captions) != count:
        raise ShardError(f"{metadata}: changed since the run started")
    return captions


def _metadata(folder: str, number: str) -> Path:
    return Path(folder) / "metadata" / f"metadata_{number}.parquet"


def _array(folder: str, number: str, kind: str) -> Path:
    subfolder, stem = _FOLDERS[kind]
    path = Path(folder) / subfolder / f"{stem}_{number}.npy"
    if not path.exists():
        raise UserError(f"{path}: no {kind} embeddings for this number")
    return path


def _parquet():
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("parquet needs: pip install 'unclip_jax[parquet]'") from None
    return pyarrow.parquet
