"""Names of shards: paths, folders, globs and braces, in one well-defined order.

`a-{000..123}.tar` counts with leading zeros, `{train,val}.tar` lists, `*.tar` and folders are
sorted by name; several specs may be joined with `::` as webdataset does. The order given is kept.
"""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from unclip_jax.data.storage import is_remote
from unclip_jax.errors import UserError

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_GLOB = re.compile(r"[*?\[]")


def expand_shards(spec: str | Sequence[str], *, must_exist: bool = True) -> list[str]:
    """Returns the paths that a spec names.

    Raises UserError where it names none, one twice, or (if `must_exist`) one that is not there.
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    paths = []
    for part in (piece for item in specs for piece in str(item).split("::")):
        if part.startswith("pipe:"):
            raise UserError(f"{part}: shell pipes are not run; mount or copy the shards instead")
        for name in expand_braces(part):
            paths += _existing(name, must_exist)
    if not paths:
        raise UserError(f"no shards in {spec!r}; give a path such as 'data/{{000..099}}.tar'")
    repeated = sorted({path for path in paths if paths.count(path) > 1}) if _repeats(paths) else []
    if repeated:
        raise UserError(f"{repeated[0]} is listed more than once in {spec!r}; list it once")
    return paths


def expand_braces(text: str) -> list[str]:
    """Expands the first `{a,b}` or `{00..12}` of `text`, then the rest."""
    opening = text.find("{")
    if opening < 0:
        return [text]
    closing = _closing(text, opening)
    body = text[opening + 1 : closing]
    span = _RANGE.fullmatch(body)
    if span:
        first, last = span.groups()
        if int(first) > int(last):
            raise UserError(f"{text}: the range {{{body}}} runs backwards; write {{low..high}}")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        choices = [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
    else:
        choices = [inner for part in _split_commas(body) for inner in expand_braces(part)]
    tails = expand_braces(text[closing + 1 :])
    return [text[:opening] + choice + tail for choice in choices for tail in tails]


def _closing(text: str, opening: int) -> int:
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    raise UserError(f"{text}: '{{' is never closed")


def _split_commas(body: str) -> list[str]:
    parts, depth = [""], 0
    for char in body:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _existing(name: str, must_exist: bool) -> list[str]:
    if is_remote(name) and not name.startswith("file://"):
        return _remote_glob(name) if _GLOB.search(name) else [name]
    name = name.removeprefix("file://")
    path = Path(name)
    if path.is_dir():
        found = sorted(str(child) for child in path.glob("*.tar"))
        if not found:
            raise UserError(f"{name}: the folder holds no .tar files, no pictures")
        return found
    if _GLOB.search(name) and not path.exists():
        found = sorted(glob.glob(name))
        if not found:
            raise UserError(f"{name}: no file matches this pattern")
        return found
    if must_exist and not path.exists():
        raise UserError(f"{name}: no such shard; check the path")
    return [name]


def _remote_glob(pattern: str) -> list[str]:
    if pattern.startswith(("http://", "https://")):
        return [pattern]  # '?' begins a query, and http lists no folders
    from unclip_jax.data import remote

    found = remote.READER.glob(pattern)
    if not found:
        raise UserError(f"{pattern}: no object matches this pattern")
    return found


def _repeats(paths: list[str]) -> bool:
    return len(set(paths)) != len(paths)
