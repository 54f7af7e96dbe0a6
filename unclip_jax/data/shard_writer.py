"""Writing well-formed shards.

Plain headers (no PAX block a member, which saves 1 KB each), the members of a sample adjacent,
times and owners zero, so that equal input gives equal bytes. A shard appears under its name only
when it is whole.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

Sample = tuple[str, dict[str, bytes]]  # key, field -> bytes


def write_shards(samples: Iterable[Sample], out: Path, samples_per_shard: int) -> Iterator[Path]:
    """Writes (key, field -> bytes) samples as numbered shards and yields their paths."""
    stream = iter(samples)
    number = 0
    first = next(stream, None)
    while first is not None:
        path = out / f"{number:05d}.tar"
        draft = path.with_suffix(".partial")
        with tarfile.open(draft, "w", format=tarfile.GNU_FORMAT) as archive:
            count = 0
            while first is not None and count < samples_per_shard:
                _add(archive, *first)
                count += 1
                first = next(stream, None)
        os.replace(draft, path)
        yield path
        number += 1


def _add(archive: tarfile.TarFile, key: str, members: dict[str, bytes]) -> None:
    for field, content in members.items():
        info = tarfile.TarInfo(f"{key}.{field}")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
