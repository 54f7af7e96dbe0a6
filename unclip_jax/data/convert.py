"""Well-formed shards from what there is: folders, prepared sets, compressed or unsorted tars."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from unclip_jax.data.catalog import Shard
from unclip_jax.data.clip_retrieval import RetrievalShard
from unclip_jax.data.embeddings import MEMBERS
from unclip_jax.data.folder import FolderShard
from unclip_jax.data.keys import split_name
from unclip_jax.data.shard_writer import Sample, write_shards
from unclip_jax.data.sources import open_shards
from unclip_jax.errors import UserError

_TARS = (".tar", ".tgz", ".gz", ".bz2", ".xz")


def convert(
    source: str | Path,
    out: str | Path,
    *,
    samples_per_shard: int = 10_000,
    written: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Writes the samples of a source as `out`/00000.tar, 00001.tar, ….

    One tar may be compressed, and members of a key that are scattered over it are brought together
    (it is held in memory for that). Any other source that `open_dataset` reads will do; its samples
    are numbered. The json of a picture from a folder says its file name, and the embeddings of a
    clip-retrieval folder become members. `written` is told each path when its shard is whole.

    Raises UserError: the source cannot be read, or `out` already holds tars.
    """
    out = Path(out)
    if any(out.glob("*.tar")):
        raise UserError(f"{out}: holds .tar files already; name an empty folder")
    if str(source).endswith(_TARS) and "*" not in str(source) and "{" not in str(source):
        samples = _from_tar(Path(source))
    else:
        shards = open_shards(source)
        samples = _from_shards(shards)
        _copy_provenance(shards, out)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for path in write_shards(samples, out, samples_per_shard):
        paths.append(path)
        written(path)
    return paths


def _from_shards(shards: tuple[Shard, ...]) -> Iterator[Sample]:
    number = 0
    for shard in shards:
        for ordinal in range(shard.summary.samples):
            key, content = shard.read(ordinal)
            members = {field: bytes(value) for field, value in content.items()}
            if isinstance(shard, FolderShard):
                members["json"] = _with_file_name(members.get("json"), key)
            if isinstance(shard, RetrievalShard):
                members |= _embeddings(shard, ordinal)
            yield f"{number:09d}", members
            number += 1


def _embeddings(shard: RetrievalShard, ordinal: int) -> dict[str, bytes]:
    members = {}
    for kind in ("image", "text"):
        buffer = io.BytesIO()
        np.save(buffer, shard.side_car(kind).rows[ordinal : ordinal + 1][0])
        members[MEMBERS[kind][0]] = buffer.getvalue()
    return members


def _copy_provenance(shards: tuple[Shard, ...], out: Path) -> None:
    if isinstance(shards[0], RetrievalShard):
        out.mkdir(parents=True, exist_ok=True)
        made_by = asdict(shards[0].side_car("image").provenance)
        (out / "provenance.json").write_text(json.dumps(made_by))


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
