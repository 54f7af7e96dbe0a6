"""Plain webdataset tars, always the same bytes for the same members.

USTAR headers with modification time, owner and mode fixed: no PAX records (1 KB saved per member)
and nothing that depends on when or where the file was written. A tar appears under its name only
when it is complete.
"""

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes (name, content) pairs in order, atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
