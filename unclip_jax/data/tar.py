"""A tar reader that gives byte positions: USTAR, GNU long names, PAX headers, base-256 sizes.

A tar is a chain of 512-byte blocks: a header, then the member's bytes padded to a block. Long names
and large sizes come in extra members in front of the real one: type `L` (GNU name) or `x` (PAX,
records "length key=value\\n"). We note where each member begins, extra headers included, so that a
later range read of a whole sample can be parsed on its own (POSIX.1-2001, pax; GNU tar manual).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_ABOUT_NEXT = (b"x", b"L")  # give the next member's name or size
_ABOUT_OTHERS = (b"g", b"K")  # archive-wide PAX header, GNU long link target: nothing we need
_ADLER = 65521
_HEADER = struct.Struct("100s24x12s20x1s100x6s82x155s12x")  # name, size, type, magic, prefix
_MAX_EXTENSION = 1 << 20  # no honest long name or PAX header is larger


class TarError(Exception):
    """The chain of headers breaks here: cut or damaged tar."""


class Member(NamedTuple):
    """One regular file: `start` is its first header block, `data` its first byte."""

    name: str
    start: int
    data: int
    size: int

    @property
    def end(self) -> int:
        return self.data + padded(self.size)


def padded(size: int) -> int:
    """Returns the bytes of the whole blocks that `size` bytes fill."""
    return (size + BLOCK - 1) & -BLOCK


class TarScanner:
    """Iterates over the regular members of a tar, reading its headers only.

    After the iteration `end` is the offset after the last whole member, and `problem` is None or
    says why the scan stopped before the end-of-archive mark or the end of the file.
    """

    def __init__(self, file: BinaryIO, size: int):
        self._file = file
        self._size = size
        self.end = 0
        self.problem: str | None = None

    def __iter__(self) -> Iterator[Member]:
        start, name, size = 0, None, None  # of the coming member, from extra headers
        position = 0
        try:
            while position + BLOCK <= self._size:
                header = self._read(position, BLOCK)
                if not header[0] and header.count(0) == BLOCK:
                    return
                check_sum(header)
                kind, own_name, own_size = parse_header(header)
                data = position + BLOCK
                if kind in _ABOUT_NEXT:
                    if own_size > _MAX_EXTENSION:
                        raise TarError(f"extended header of {own_size} bytes")
                    content = self._read(data, own_size)
                    name, size = _extend(kind, content, name, size)
                    position = data + padded(own_size)
                    continue
                length = own_size if size is None else size
                position = data + padded(length)
                if data + length > self._size:
                    raise TarError(f"cut inside {name or own_name!r}")
                if kind in _REGULAR:
                    yield Member(name or own_name, start, data, length)
                if kind not in _ABOUT_OTHERS:
                    start, name, size = position, None, None
                self.end = position
            if position < self._size:
                raise TarError("cut inside a header")
        except TarError as error:
            self.problem = f"{error} at byte {position}"

    def _read(self, position: int, size: int) -> bytes:
        self._file.seek(position)
        content = self._file.read(size)
        if len(content) != size:
            raise TarError("cut")
        return content


def parse_header(content: bytes | memoryview, at: int = 0) -> tuple[bytes, str, int]:
    """Returns (type, name, size) of the header block at a position."""
    own_name, size, kind, magic, prefix = _HEADER.unpack_from(content, at)
    name = _text(own_name)
    if prefix[0] and magic == b"ustar\0":
        name = f"{_text(prefix)}/{name}"
    return kind, name, _number(size)


def parse_members(content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Yields (name, bytes) of the regular members in a piece of a tar that starts at a header."""
    name, size, position = None, None, 0
    while position + BLOCK <= len(content) and content[position]:
        kind, own_name, own_size = parse_header(content, position)
        data = position + BLOCK
        if kind in _ABOUT_NEXT:
            name, size = _extend(kind, bytes(content[data : data + own_size]), name, size)
            position = data + padded(own_size)
            continue
        length = own_size if size is None else size
        if data + length > len(content):
            raise TarError(f"cut inside {name or own_name!r}")
        if kind in _REGULAR:
            yield name or own_name, content[data : data + length]
        position = data + padded(length)
        if kind not in _ABOUT_OTHERS:
            name, size = None, None


def check_sum(header: bytes) -> None:
    """Raises TarError unless the sum of the header's bytes is the stored one.

    That counts its own eight bytes as blanks. It is compared modulo 65521, in which Adler-32 gives
    the sum of bytes (and one) at the speed of C.
    """
    stored = header[148:156]
    counted = (zlib.adler32(header) & 0xFFFF) - 1 - sum(stored) + 8 * ord(" ")
    if (counted - _number(stored)) % _ADLER:
        raise TarError("bad header checksum")


def _extend(
    kind: bytes, content: bytes, name: str | None, size: int | None
) -> tuple[str | None, int | None]:
    if kind == b"L":
        return _text(content), size
    if b"path=" not in content and b"size=" not in content:
        return name, size  # webdataset's writer puts a header with the time before every member
    records = _pax_records(content)
    if "path" in records:
        name = records["path"]
    if "size" in records:
        size = int(records["size"])
    return name, size


def _pax_records(content: bytes) -> dict[str, str]:
    records = {}
    while content:
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(content):
            raise TarError("bad PAX header")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return records


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base-256, for sizes above 8 GiB
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise TarError("bad number in header") from None
