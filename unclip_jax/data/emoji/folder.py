"""The output folder: empty, unfinished or finished, and for which recipe.

`stats.json` is written last and marks a finished set. Until then `.drawing/` holds the pictures
drawn so far and the recipe they belong to.
"""

import json
import shutil
from pathlib import Path

from unclip_jax.data.emoji.emoji_set import EmojiSet, Recipe
from unclip_jax.data.emoji.shards import write_text
from unclip_jax.errors import UserError

_STATS = "stats.json"
_WORK = ".drawing"
_RECIPE = "recipe.json"


def finished_build(out: Path, recipe: Recipe) -> EmojiSet | None:
    """The finished set in `out` if every shard is still there; None if there is work to do.

    Raises:
      UserError: a set of another recipe is in `out`.
    """
    if not (out / _STATS).is_file():
        return None
    stats = json.loads((out / _STATS).read_text(encoding="utf-8"))
    _refuse_other(out, stats["recipe"], recipe.to_json())
    built = EmojiSet.from_json(out, stats)
    paths = [out / shard.name for shard in built.shards]
    whole = all(
        path.is_file() and path.stat().st_size == shard.bytes
        for path, shard in zip(paths, built.shards, strict=True)
    )
    return built if whole else None


def begin(out: Path, recipe: Recipe, renderer: str) -> Path:
    """Makes `out` ready for a build, or for going on with one; returns the folder for pictures.

    Raises:
      UserError: `out` holds something else.
    """
    work = out / _WORK
    wanted = recipe.to_json() | {"renderer": renderer}
    if (work / _RECIPE).is_file():
        _refuse_other(out, json.loads((work / _RECIPE).read_text(encoding="utf-8")), wanted)
        return work
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder for the emoji set")
    ours = {_STATS, _WORK}
    if out.is_dir() and (found := {path.name for path in out.iterdir()}) and not found & ours:
        raise UserError(f"{out} holds other files; choose an empty or new folder for the emoji set")
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / _RECIPE, _pretty(wanted))
    return work


def finish(emoji_set: EmojiSet) -> None:
    """Marks the set as finished and removes the drawn pictures."""
    write_text(emoji_set.directory / _STATS, _pretty(emoji_set.to_json()))
    shutil.rmtree(emoji_set.directory / _WORK)


def _refuse_other(out: Path, found: dict, wanted: dict) -> None:
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    if differing:
        was, now = ({key: side.get(key) for key in differing} for side in (found, wanted))
        raise UserError(
            f"{out} holds an emoji set built with {was}, not {now}: choose another folder, "
            "or delete this one"
        )


def _pretty(value: dict) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
