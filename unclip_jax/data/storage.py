"""Bytes of a shard, local or remote: its size and version, a range of it, all of it in order.

Every read is checked against the size and version that the shard was indexed with: a shard that
changes under a run is an error, not other data.
"""

import glob
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from unclip_jax.data.files import replace_file
from unclip_jax.errors import UserError

_BLOCK = 4 << 20  # bytes asked for at once when a remote shard is read through


class ShardError(UserError):
    """A shard could not be read as indexed: it changed, vanished or came up short. Fatal."""


class MissingShard(UserError):
    """There is no shard of this name, or it is empty."""


def is_remote(path: str) -> bool:
    return "://" in path


def stat(path: str) -> tuple[int, int]:
    """Returns (bytes, version): a local file's mtime in ns, a remote one's digest of its etag.

    Raises MissingShard if there is no such shard.
    """
    if is_remote(path):
        return _remote().stat(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise MissingShard(f"{path}: no such shard; check the path") from None
    return found.st_size, found.st_mtime_ns


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    try:
        stat(path)
    except MissingShard:
        return False
    return True


def find(folder: str, pattern: str) -> list[str]:
    """Returns the files of a folder whose names match, sorted; none over http, which lists none."""
    if not is_remote(folder):
        return sorted(glob.glob(f"{glob.escape(folder)}/{pattern}"))
    if folder.startswith(("http://", "https://")):
        return []
    return _remote().glob(f"{folder}/{pattern}")


def read_file(path: str) -> bytes | None:
    """Returns all of a small file, or None if there is none."""
    try:
        size, version = stat(path)
    except MissingShard:
        return None
    return bytes(read_range(path, size, version, 0, size)) if size else b""


def remove_file(path: str) -> None:
    """Removes a file if it is there."""
    if is_remote(path):
        _remote().remove(path)
    else:
        Path(path).unlink(missing_ok=True)


def write_file(path: str, content: bytes) -> None:
    """Writes a file, whole or not at all. Raises UserError where it cannot be written."""
    if is_remote(path):
        _remote().write(path, content)
    else:
        replace_file(Path(path), content)


def open_sequential(path: str, size: int) -> BinaryIO:
    """Opens a shard to be read from begin to end, with short seeks forward."""
    if not is_remote(path):
        return open(path, "rb")
    return io.BufferedReader(
        _Ranges(lambda at, n: _remote().fetch(path, size, at, n), size), _BLOCK
    )


def read_range(path: str, size: int, version: int, offset: int, length: int) -> memoryview:
    """Returns `length` bytes from `offset`. Raises ShardError; never returns less."""
    if is_remote(path):
        return memoryview(_remote().fetch(path, size, offset, length))
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ShardError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        found = os.fstat(descriptor)
        if (found.st_size, found.st_mtime_ns) != (size, version):
            raise ShardError(f"{path}: changed since the run started")
        content = os.pread(descriptor, length, offset)
        while len(content) < length:
            more = os.pread(descriptor, length - len(content), offset + len(content))
            if not more:
                raise ShardError(f"{path}: ends before byte {offset + length}")
            content += more
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    return memoryview(content)


def _remote():
    """The reader of remote shards; imported when one is first touched."""
    from unclip_jax.data import remote

    return remote.READER


class _Ranges(io.RawIOBase):
    """A file whose reads are range requests, for io.BufferedReader."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int):
        self._fetch = fetch
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        if count:
            buffer[:count] = self._fetch(self._position, count)
            self._position += count
        return count
