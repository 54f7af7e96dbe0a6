"""Reading a range of bytes of a shard, and noticing when the shard is no longer the one indexed."""

import os

from unclip_jax.data.catalog import Shard


class ShardError(Exception):
    """A shard could not be read as indexed: it changed, vanished or came up short. Fatal."""


def read_range(shard: Shard, offset: int, length: int) -> memoryview:
    """Returns `length` bytes from `offset`. Raises ShardError; never returns less."""
    try:
        descriptor = os.open(shard.path, os.O_RDONLY)
    except OSError as error:
        raise ShardError(f"{shard.path}: cannot be opened ({error.strerror})") from error
    try:
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns) != (shard.summary.tar_bytes, shard.summary.mtime_ns):
            raise ShardError(f"{shard.path}: changed since the run started")
        content = bytearray(length)
        view = memoryview(content)
        done = 0
        while done < length:
            count = os.preadv(descriptor, [view[done:]], offset + done)
            if not count:
                raise ShardError(f"{shard.path}: ends before byte {offset + length}")
            done += count
    finally:
        os.close(descriptor)
    return view.toreadonly()
