"""The rows of an .npy file, local or remote, read by number without loading the file.

A local file is memory-mapped; only the most recently used maps stay open, so that a set of tens of
thousands of shards does not run out of file descriptors. A remote one is read in blocks of rows.
"""

import functools
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from unclip_jax.data.chunks import CACHE, CHUNK
from unclip_jax.data.storage import is_remote, read_range, stat
from unclip_jax.errors import UserError

_OPEN_MAPS = 256
_HEADER = 4096  # more than the header of any two-dimensional array


@dataclass(frozen=True)
class RowsFile:
    """A two-dimensional array on disk or in a bucket; rows[ordinals] and rows[i:j] read it."""

    path: str
    shape: tuple[int, int]
    dtype: np.dtype
    begin: int  # of the first row, in bytes
    size: int
    version: int

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "n D"]:
        if not is_remote(self.path):
            return _map(self)[key]
        if isinstance(key, slice):
            return self._between(*key.indices(len(self))[:2])
        blocks = np.asarray(key) // CHUNK
        out = np.empty((len(blocks), self.shape[1]), self.dtype)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            out[here] = self._block(block)[np.asarray(key)[here] - block * CHUNK]
        return out

    def _block(self, block: int) -> np.ndarray:
        first, behind = block * CHUNK, min(block * CHUNK + CHUNK, len(self))
        content = CACHE.get(
            (self.path, self.version, block), lambda: memoryview(self._bytes(first, behind))
        )
        return np.frombuffer(content, self.dtype).reshape(-1, self.shape[1])

    def _between(self, first: int, behind: int) -> np.ndarray:
        return np.frombuffer(self._bytes(first, behind), self.dtype).reshape(-1, self.shape[1])

    def _bytes(self, first: int, behind: int) -> memoryview:
        row = self.shape[1] * self.dtype.itemsize
        length = (behind - first) * row
        return read_range(self.path, self.size, self.version, self.begin + first * row, length)


def open_rows(path: str) -> RowsFile:
    """Reads the header. Raises UserError if the file is missing or holds no rows of numbers."""
    size, version = stat(path)
    head = io.BytesIO(read_range(path, size, version, 0, min(size, _HEADER)))
    try:
        major, _ = np.lib.format.read_magic(head)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = reader[major](head)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: is no .npy file ({error})") from None
    if len(shape) != 2 or fortran or dtype.kind != "f":
        raise UserError(f"{path}: holds {dtype} {shape}, not rows of floating-point numbers")
    begin = head.tell()
    if begin + shape[0] * shape[1] * dtype.itemsize != size:
        raise UserError(f"{path}: is cut: {size} bytes for {dtype} {shape}")
    return RowsFile(path, shape, dtype, begin, size, version)


@functools.lru_cache(maxsize=_OPEN_MAPS)
def _map(file: RowsFile) -> np.memmap:
    found = stat(file.path)
    if found != (file.size, file.version):
        raise UserError(f"{file.path}: changed since the run started")
    return np.memmap(file.path, file.dtype, "r", file.begin, file.shape)
