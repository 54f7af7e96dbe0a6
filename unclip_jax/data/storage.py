"""Reading a range of bytes of a shard, and noticing when the shard is no longer the one indexed."""

import os

from unclip_jax.data.index import Summary


class ShardError(Exception):
    """A shard could not be read as indexed: it changed, vanished or came up short. Fatal."""


def read_range(path: str, summary: Summary, offset: int, length: int) -> memoryview:
    """Returns `length` bytes from `offset`. Raises ShardError; never returns less."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ShardError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns) != (summary.tar_bytes, summary.mtime_ns):
            raise ShardError(f"{path}: changed since the run started")
        content = bytearray(length)
        view = memoryview(content)
        done = 0
        while done < length:
            count = os.preadv(descriptor, [view[done:]], offset + done)
            if not count:
                raise ShardError(f"{path}: ends before byte {offset + length}")
            done += count
    finally:
        os.close(descriptor)
    return view.toreadonly()
