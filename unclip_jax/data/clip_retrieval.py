"""Folders of clip-retrieval as shards: embeddings and captions without pictures, for the prior.

`img_emb/img_emb_N.npy`, `text_emb/text_emb_N.npy` and `metadata/metadata_N.parquet` (column
`caption`) have one row a sample, in one order; a number N is one shard. Rows have unit norm.
The folder may lie on a bucket; over http, which lists no folders, it can't be found.
The files do not say which CLIP made them: a `provenance.json` with "model", "model_hash" and
"normalised" in the folder does, and without it the hash is "unknown".
"""

import functools
import re
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.catalog import Members
from unclip_jax.data.embeddings import SideCar, folder_provenance
from unclip_jax.data.index import Summary
from unclip_jax.data.rows_file import open_rows
from unclip_jax.data.storage import ShardError, exists, find, is_remote, open_sequential, stat
from unclip_jax.data.threads import each
from unclip_jax.errors import UserError

_FOLDERS = {"image": ("img_emb", "img_emb"), "text": ("text_emb", "text_emb")}
_NUMBER = re.compile(r"/img_emb_(\d+)\.npy$")


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
        return not is_remote(self.folder)

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
        if not exists(path):
            raise UserError(f"{path}: no {kind} embeddings for this number")
        rows = open_rows(path)
        if len(rows) != self.summary.samples:
            raise UserError(f"{path}: {len(rows)} rows, but {self.summary.samples} captions")
        return SideCar(path, folder_provenance(self.folder, "clip-retrieval"), rows)


def is_retrieval_folder(path: str) -> bool:
    """Whether there are such files, here or on a bucket."""
    return not path.endswith(".tar") and bool(_numbers(path))


def open_retrieval_folder(path: str) -> tuple[RetrievalShard, ...]:
    """Returns the shards of a folder. Raises UserError if files are missing."""
    path = path.rstrip("/")
    return tuple(each(lambda number: _open(path, number), _numbers(path), "open"))


def _numbers(folder: str) -> list[str]:
    """The numbers of a folder, in their order."""
    names = find(f"{folder.rstrip('/')}/img_emb", "img_emb_*.npy")
    found = (_NUMBER.search(name) for name in names)
    return sorted((match.group(1) for match in found if match), key=lambda n: (len(n), n))


def _open(folder: str, number: str) -> RetrievalShard:
    metadata = _metadata(folder, number)
    if not exists(metadata):
        raise UserError(f"{metadata}: missing, but img_emb_{number}.npy is there")
    size, _ = stat(metadata)
    with open_sequential(metadata, size) as stream:
        table = _parquet().ParquetFile(stream)
        names, count = table.schema_arrow.names, table.metadata.num_rows
    if "caption" not in names:
        raise UserError(f"{metadata}: no column 'caption' (there are: {', '.join(names)})")
    identity = zlib.crc32(f"{number} {count} {size}".encode())
    return RetrievalShard(
        folder, number, Summary(size, 0, count, ("txt",), {1: count}, {}, identity)
    )


@functools.lru_cache(maxsize=8)
def _captions(metadata: str, count: int) -> list[str | None]:
    """Captions of one shard; about 100 bytes each, and a shard has up to a million."""
    with open_sequential(metadata, stat(metadata)[0]) as stream:
        table = _parquet().read_table(stream, columns=["caption"])
    captions = table.column(0).to_pylist()
    if len(captions) != count:
        raise ShardError(f"{metadata}: changed since the run started")
    return captions


def _metadata(folder: str, number: str) -> str:
    return f"{folder}/metadata/metadata_{number}.parquet"


def _array(folder: str, number: str, kind: str) -> str:
    subfolder, stem = _FOLDERS[kind]
    return f"{folder}/{subfolder}/{stem}_{number}.npy"


def _parquet():
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("parquet needs: pip install 'unclip_jax[parquet]'") from None
    return pyarrow.parquet
