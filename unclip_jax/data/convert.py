"""Well-formed shards from what there is: folders of pictures, compressed or unsorted tars.

Output: tars of plain headers (no PAX block a member, which saves 1 KB each), members of a sample
adjacent, times and owners zero, so that equal input gives equal bytes. A shard appears under its
name only when it is whole.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from unclip_jax.data.folder import list_folder
from unclip_jax.data.keys import split_name
from unclip_jax.errors import UserError

Sample = tuple[str, dict[str, bytes]]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    samples_per_shard: int = 10_000,
    written: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Writes the samples of a folder of pictures, or of one tar, as `out`/00000.tar, 00001.tar, ….

    Members of a key that are scattered over a tar are brought together (it is held in memory for
    that). Pictures of a folder are numbered; the json of each says its file name.
    `written` is told each path when its shard is whole.

    Raises UserError: the source cannot be read, or `out` already holds tars.
    """
    source, out = Path(source), Path(out)
    if any(out.glob("*.tar")):
        raise UserError(f"{out}: holds .tar files already; name an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    samples = _from_folder(source) if source.is_dir() else _from_tar(source)
    paths = []
    for path in write_shards(samples, out, samples_per_shard):
        paths.append(path)
        written(path)
    return paths


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


def _from_folder(folder: Path) -> Iterator[Sample]:
    for number, sample in enumerate(list_folder(folder)):
        members = {field: bytes(content) for field, content in sample.read().items()}
        members["json"] = _with_file_name(members.get("json"), sample.key)
        yield f"{number:09d}", members


def _from_tar(path: Path) -> Iterator[Sample]:
    gathered: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                split = split_name(member.name) if member.isreg() else None
                if split is None:
                    continue
                file = archive.extractfile(member)
                if file is not None:
                    gathered.setdefault(split[0], {}).setdefault(split[1], file.read())
    except FileNotFoundError:
        raise UserError(f"{path}: no such tar; check the path") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read to its end ({error})") from None
    yield from gathered.items()


def _with_file_name(content: bytes | None, name: str) -> bytes:
    try:
        record = json.loads(content or b"{}")
    except ValueError:
        raise UserError(f"the json beside {name} is broken; mend it or remove it") from None
    if not isinstance(record, dict):
        raise UserError(f"the json beside {name} is no object; mend it or remove it")
    return json.dumps({**record, "file_name": name}).encode()
