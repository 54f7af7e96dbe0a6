"""The emoji set: the same things drawn in several styles, as captioned webdataset shards.

One concept in several styles gives what most small image sets lack: image variations and text-diffs
with a known right answer, and two honest held-out questions (see splits.py). The build downloads
pinned and verified packages, draws every picture, drops byte-identical ones and writes the shards.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unclip_jax.data.emoji.catalog import Picture, load_catalog
from unclip_jax.data.emoji.documents import metadata, vocabulary, write_documents
from unclip_jax.data.emoji.draw import Progress, draw_all
from unclip_jax.data.emoji.emoji_set import EmojiSet, Recipe, Shard
from unclip_jax.data.emoji.fetch import cache_directory, fetch
from unclip_jax.data.emoji.folder import begin, finish, finished_build
from unclip_jax.data.emoji.names import format_code
from unclip_jax.data.emoji.packages import (
    PERMISSIVE_STYLES,
    Package,
    required_packages,
    resolve_styles,
)
from unclip_jax.data.emoji.render import picture_format, renderer_version
from unclip_jax.data.emoji.shards import write_tar
from unclip_jax.data.emoji.sheet import write_contact_sheet
from unclip_jax.data.emoji.splits import SPLITS, assign_splits, choose_concepts, shuffle
from unclip_jax.errors import UserError

PICTURES_PER_SHARD = 1000


@dataclass(frozen=True)
class _Drawn:
    """A picture with its split and the file it has been drawn into."""

    picture: Picture
    split: str
    path: Path


def build_emoji_set(
    out: str | os.PathLike[str],
    *,
    size: int = 64,
    styles: Iterable[str] = PERMISSIVE_STYLES,
    tones: bool = False,
    limit: int | None = None,
    jobs: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> EmojiSet:
    """Builds the set in the folder `out`, or returns what is there if it was built already.

    The same arguments give the same bytes (for one version of libvips). A build that was stopped
    goes on where it was.

    Args:
      out: folder for shards, `stats.json`, `README.md`, licences and a contact sheet.
      size: side of the pictures in pixels: 64, 128 or 256.
      styles: names from `packages.STYLES`; the default ones have permissive licences.
      tones: also the skin-toned forms.
      limit: only this many concepts, a fixed choice; None means all.
      jobs: processes that draw; None means one for each CPU.
      cache: folder for downloads; None means `fetch.cache_directory()`.
      progress: called with (stage, done, total), for the stages "download", "draw" and "write".

    Raises:
      UserError: a bad argument, a folder that holds something else, no npm, no network, a package
        that is not the recorded one, or no pyvips.
    """
    out = Path(out)
    recipe = Recipe(size, resolve_styles(styles), tones, limit)
    processes = _processes(jobs)
    if built := finished_build(out, recipe):
        return built
    renderer = renderer_version()
    work = begin(out, recipe, renderer)
    folder = Path(cache) if cache is not None else cache_directory()
    tarballs = _download(required_packages(recipe.styles), folder, progress)
    catalog = load_catalog(recipe.styles, tones, tarballs.__getitem__)
    drawn = _plan(catalog.pictures, recipe, work)
    draw_all([(each.path, each.picture.source) for each in drawn], size, processes, progress)
    kept = _without_duplicates(drawn)
    captions = {each.picture.caption for each in kept}
    styles_kept = Counter(each.picture.style for each in kept)
    emoji_set = EmojiSet(
        directory=out,
        recipe=recipe,
        renderer=renderer,
        shards=tuple(_write_shards(out, kept, size, progress)),
        styles={style: styles_kept[style] for style in recipe.styles},
        concepts=len({each.picture.name.concept for each in kept}),
        captions=len(captions),
        vocabulary=vocabulary(captions),
        duplicates=len(drawn) - len(kept),
        unnamed=catalog.unnamed,
    )
    write_contact_sheet(out / "contact_sheet.png", [(each.picture, each.path) for each in kept])
    write_documents(emoji_set)
    finish(emoji_set)
    return emoji_set


def _download(packages: Sequence[Package], folder: Path, progress: Progress) -> dict[Package, Path]:
    tarballs = {}
    for count, package in enumerate(packages):
        progress("download", count, len(packages))
        tarballs[package] = fetch(package, folder)
    progress("download", len(packages), len(packages))
    return tarballs


def _plan(pictures: Sequence[Picture], recipe: Recipe, work: Path) -> list[_Drawn]:
    """Which pictures to draw, in the order of the shards, each with its split and its file."""
    chosen = shuffle(choose_concepts(pictures, recipe.limit))
    extension = picture_format(recipe.size)
    return [
        _Drawn(picture, split, work / f"{_key(picture)}.{extension}")
        for picture, split in zip(chosen, assign_splits(chosen), strict=True)
    ]


def _key(picture: Picture) -> str:
    """The sample's key in the shards, the same at every size: "noto_1f32e"."""
    return f"{picture.style}_{format_code(picture.code)}"


def _processes(jobs: int | None) -> int:
    if jobs is not None:
        if jobs < 1:
            raise UserError(f"jobs is a number of processes, at least 1, not {jobs}")
        return jobs
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _without_duplicates(drawn: Sequence[_Drawn]) -> list[_Drawn]:
    """Drops byte-identical pictures, and held-out styles whose concept is then never trained on.

    Of identical pictures the one for training stays, so that nothing held out is a training
    picture under another name.
    """
    seen: set[bytes] = set()
    unique = []
    for each in sorted(drawn, key=lambda each: SPLITS.index(each.split)):  # a stable sort
        digest = hashlib.blake2b(each.path.read_bytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            unique.append(each)
    known = {each.picture.name.concept for each in unique if each.split == "train"}
    return [
        each for each in unique if each.split != "val_style" or each.picture.name.concept in known
    ]


def _write_shards(
    out: Path, kept: Sequence[_Drawn], size: int, progress: Progress
) -> Iterator[Shard]:
    written = 0
    for split in SPLITS:
        members = [each for each in kept if each.split == split]
        for start in range(0, len(members), PICTURES_PER_SHARD):
            chosen = members[start : start + PICTURES_PER_SHARD]
            path = out / f"{split}-{start // PICTURES_PER_SHARD:05d}.tar"
            write_tar(path, (member for each in chosen for member in _sample(each, size)))
            written += len(chosen)
            progress("write", written, len(kept))
            yield Shard.of(path, split, len(chosen))


def _sample(each: _Drawn, size: int) -> Iterator[tuple[str, bytes]]:
    key = _key(each.picture)
    yield each.path.name, each.path.read_bytes()
    yield f"{key}.txt", each.picture.caption.encode()
    yield f"{key}.json", metadata(each.picture, size)
