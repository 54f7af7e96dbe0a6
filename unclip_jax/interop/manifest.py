"""bundle.json: what a bundle holds, with a checksum of every file that carries weights.

    {"format": "unclip_jax", "version": 1, "created": …, "versions": {"jax": …},
     "stages": {"clip": {"config": {…}, "dtype": "float32",
                         "files": [{"name": "clip.safetensors", "sha256": …, "bytes": …}],
                         "step": …, "parameters": …, "weights_sha256": …,
                         "clip_sha256": null, "provenance": {…}}, …},
     "statistics": null or {"name": "statistics.safetensors", "sha256": …, "bytes": …},
     "others": [{"name": "tokenizer/vocab.json", "sha256": …, "bytes": …}, …],
     "quality": null or what rounding to int8 cost}

`weights_sha256` is the hash of the float32 weights before they were stored, so a bundle in bfloat16
still says which CLIP its prior was trained against.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unclip_jax.config import RunConfig, from_mapping
from unclip_jax.config.typed import build, to_plain
from unclip_jax.errors import UserError

FILE = "bundle.json"
FORMAT, VERSION = "unclip_jax", 1


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the bundle; `name` is its path within it."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """A stage of the bundle; see `generation.TrainedStage` for the fields they share."""

    config: RunConfig
    dtype: str
    files: tuple[FileEntry, ...]
    step: int
    parameters: int
    weights_sha256: str
    clip_sha256: str | None
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of bundle.json."""

    created: str
    versions: Mapping[str, str]
    stages: Mapping[str, StageEntry]
    statistics: FileEntry | None
    others: tuple[FileEntry, ...] = ()
    quality: Mapping[str, Any] | None = None


def file_entry(path: pathlib.Path) -> FileEntry:
    """The entry of a file on disk."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(name=path.name, sha256=digest, bytes=path.stat().st_size)


def to_json(manifest: Manifest) -> str:
    """The text of bundle.json."""
    stages = {name: to_plain(stage) for name, stage in manifest.stages.items()}
    values = {"format": FORMAT, "version": VERSION, **to_plain(manifest), "stages": stages}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def read(folder: pathlib.Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
      UserError: no bundle there, or a bundle.json that this version can't read.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no bundle: it has no {FILE} (see `unclip export`)") from None
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is altered or cut short: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path} is not the {FILE} of an unclip_jax bundle")
    if values.get("version") != VERSION:
        raise UserError(
            f"{path} has format version {values.get('version')!r}, but this unclip_jax reads "
            f"{VERSION}: use the version that wrote it, or a newer one"
        )
    try:
        return _parse(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is altered: {type(error).__name__} at {error}") from None


def _parse(values: Mapping[str, Any]) -> Manifest:
    stages = {}
    for name, entry in values["stages"].items():
        config, files = from_mapping(entry["config"]), tuple(map(_file, entry["files"]))
        stages[name] = StageEntry(**{**entry, "config": config, "files": files})
    statistics = values["statistics"]
    return Manifest(
        created=values["created"],
        versions=values["versions"],
        stages=stages,
        statistics=None if statistics is None else _file(statistics),
        others=tuple(map(_file, values.get("others", ()))),
        quality=values.get("quality"),
    )


def _file(values: Mapping[str, Any]) -> FileEntry:
    entry = build(FileEntry, values, "file")
    path = pathlib.PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.name:
        raise UserError(f"{FILE} names a file outside of the bundle: {entry.name!r}")
    return entry
