"""From what a config names to shards: tars, a folder of pictures, a prepared TFDS set, …"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from unclip_jax.data import shapes, tfds
from unclip_jax.data.catalog import Shard, TarShard, published, summarise
from unclip_jax.data.clip_retrieval import is_retrieval_folder, open_retrieval_folder
from unclip_jax.data.folder import holds_pictures, open_folder
from unclip_jax.data.manifest import read_manifest
from unclip_jax.data.shards import expand_shards
from unclip_jax.data.storage import MissingShard
from unclip_jax.data.threads import each
from unclip_jax.errors import UserError

Counts = Literal["indexed", "published"]


def open_shards(
    source: str | Path | Sequence[str],
    index_dir: str | None = None,
    *,
    counts: Counts = "indexed",
    skip_missing: bool = False,
) -> tuple[Shard, ...]:
    """Opens what `source` names; see `open_dataset`.

    Raises UserError: nothing is there, some shards are missing or empty, or one cannot be read.
    """
    if isinstance(source, str | Path):
        name = str(source)
        for is_this, open_this in _SINGLE:
            if is_this(name):
                return open_this(name)
    return open_tars(source, index_dir, counts=counts, skip_missing=skip_missing)


def open_tars(
    source: str | Path | Sequence[str],
    index_dir: str | None = None,
    *,
    counts: Counts = "indexed",
    skip_missing: bool = False,
) -> tuple[TarShard, ...]:
    """Opens tars, indexing those that are not indexed yet."""
    paths = expand_shards(str(source) if isinstance(source, Path) else source, must_exist=False)
    known = read_manifest(paths, index_dir)

    def look(path: str) -> TarShard | MissingShard:
        try:
            if counts == "published":
                return published(path, index_dir)
            return summarise(path, index_dir, known=known.get(path))
        except MissingShard as missing:
            return missing

    found = each(look, paths, "open")
    there = tuple(shard for shard in found if isinstance(shard, TarShard))
    missing = [str(shard) for shard in found if isinstance(shard, MissingShard)]
    if missing and not (skip_missing and there):
        more = f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""
        raise UserError(
            f"{len(missing)} of {len(paths)} shards are not there: {'; '.join(missing[:3])}{more}"
            " — to go on without them, set missing_shards to 'skip'"
        )
    return there


def _one(open_this: Callable[[str], Shard]) -> Callable[[str], tuple[Shard, ...]]:
    return lambda name: (open_this(name),)


_SINGLE: tuple[tuple[Callable[[str], bool], Callable[[str], tuple[Shard, ...]]], ...] = (
    (lambda name: name.startswith(tfds.PREFIX), _one(tfds.open_prepared)),
    (lambda name: name.startswith(shapes.PREFIX), _one(shapes.open_shapes)),
    (holds_pictures, _one(open_folder)),
    (is_retrieval_folder, open_retrieval_folder),
)
