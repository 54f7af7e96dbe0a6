"""`manifest.json`: the summaries of all indexed shards of a folder in one file.

Opening a large set then reads one file instead of one for each shard. It only saves time: a summary
that does not fit its shard's size and version is not used, and without a manifest the indexes are
read.
"""

import hashlib
import json
import os
from collections.abc import Sequence

from unclip_jax.data.catalog import TarShard
from unclip_jax.data.index import Summary, summary_from_json, summary_to_json
from unclip_jax.data.storage import is_remote, read_file, write_file
from unclip_jax.errors import UserError

NAME = "manifest.json"


def manifest_path(paths: Sequence[str], index_dir: str | None) -> str | None:
    """Returns where the manifest of some shards lies: in the index folder, or beside the first."""
    if index_dir is not None:
        return os.path.join(index_dir, NAME)
    if not paths or is_remote(paths[0]):
        return None
    return os.path.join(os.path.dirname(paths[0]), NAME)


def read_manifest(paths: Sequence[str], index_dir: str | None) -> dict[str, Summary]:
    """Returns path -> summary of the shards that a manifest knows; {} if there is none."""
    path = manifest_path(paths, index_dir)
    content = read_file(path) if path else None
    if content is None:
        return {}
    try:
        listed = json.loads(content)["shards"]
        known = {name: summary_from_json(values) for name, values in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no manifest; remove it, or index the shards again") from None
    return {p: known[_name(p)] for p in paths if known.get(_name(p)) is not None}  # type: ignore


def write_manifest(shards: Sequence[TarShard], index_dir: str | None) -> str | None:
    """Writes the manifest of some shards and returns its path; None if it has no place."""
    path = manifest_path([shard.path for shard in shards], index_dir)
    if path is None:
        return None
    listed = {_name(shard.path): summary_to_json(shard.summary) for shard in shards}
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    content = {
        "samples": sum(shard.summary.samples for shard in shards),
        "bytes": sum(shard.summary.tar_bytes for shard in shards),
        "sha256": digest,
        "shards": listed,
    }
    try:
        write_file(path, json.dumps(content).encode())
    except OSError:  # read-only data: the indexes serve alone
        return None
    return path


def _name(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(path)
