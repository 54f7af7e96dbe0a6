"""Every picture that the chosen styles offer: what it shows and the bytes it is drawn from.

Three layouts exist. "iconify": one JSON with the SVG bodies, keyed by icon name; codes come
from the package's chars.json, or by name from a package that has one. "files": one WEBP per code.
"openmoji": one SVG per code and a JSON table of names.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from unclip_jax.data.emoji.archive import read_members
from unclip_jax.data.emoji.names import (
    Code,
    Name,
    codes_by_name,
    first_known,
    is_private,
    load_names,
    name_of,
    normalise,
    parse_code,
)
from unclip_jax.data.emoji.packages import NAMES, STYLES, Package

Tarballs = Callable[[Package], Path]


@dataclass(frozen=True)
class Picture:
    """One drawing: of which emoji, in which style, and its SVG or WEBP source."""

    style: str
    code: Code
    name: Name
    source: bytes

    @property
    def caption(self) -> str:
        return f"{self.name.label}, {STYLES[self.style].words}"


@dataclass(frozen=True)
class Catalog:
    """All pictures, ordered by style and code, and how many icons have no Unicode code."""

    pictures: tuple[Picture, ...]
    unnamed: int


def load_catalog(styles: tuple[str, ...], tones: bool, tarball_of: Tarballs) -> Catalog:
    """Lists the pictures of `styles`.

    Args:
      styles: names from `STYLES`.
      tones: whether to include the skin-toned forms.
      tarball_of: gives the tarball of a package.
    """
    data = read_members(tarball_of(NAMES), lambda path: path == "en/data.json")["en/data.json"]
    table = load_names(data)
    pictures: list[Picture] = []
    unnamed = 0
    for style in styles:
        drawn: dict[Code, Picture] = {}
        for code, label, source in _LAYOUTS[STYLES[style].layout](style, table, tarball_of):
            if code is None or is_private(code):
                unnamed += 1
                continue
            name = name_of(code, label, table)
            if tones or not name.has_tone:
                drawn.setdefault(code, Picture(style, code, name, source))
        pictures += [drawn[code] for code in sorted(drawn)]
    return Catalog(tuple(pictures), unnamed)


Drawing = tuple[Code | None, str, bytes]


def _iconify(style: str, table: Mapping[Code, Name], tarball_of: Tarballs) -> Iterator[Drawing]:
    icons, code_of = _read_iconify(tarball_of(STYLES[style].package))
    known = codes_by_name(table)
    if relative := STYLES[style].codes_from:
        other_icons, other_codes = _read_iconify(tarball_of(relative))
        for alias, target in other_icons.get("aliases", {}).items():
            if target["parent"] in other_codes:
                known.setdefault(normalise(alias), other_codes[target["parent"]])
        known |= {normalise(name): code for name, code in other_codes.items()}
    also_called = defaultdict(list)
    for alias, target in icons.get("aliases", {}).items():
        if set(target) == {"parent"}:  # a pure alias, no mirrored or turned form
            also_called[target["parent"]].append(alias)
    for name, icon in sorted(icons["icons"].items()):
        if not icon.get("hidden"):
            code = code_of.get(name) or first_known([name, *also_called[name]], known)
            yield code, name.replace("-", " "), _svg(icon, icons)


def _read_iconify(tarball: Path) -> tuple[dict[str, Any], dict[str, Code]]:
    """The icon table of an iconify package, and icon name -> code where it has codes."""
    members = read_members(tarball, lambda path: path in ("icons.json", "chars.json"))
    codes = {
        name: parse_code(text)
        for text, name in sorted(json.loads(members["chars.json"]).items(), reverse=True)
    }
    return json.loads(members["icons.json"]), codes


def _svg(icon: Mapping[str, Any], defaults: Mapping[str, Any]) -> bytes:
    """A whole SVG document from an icon's body; 16 is iconify's default size."""
    left, top = (icon.get(key, defaults.get(key, 0)) for key in ("left", "top"))
    width, height = (icon.get(key, defaults.get(key, 16)) for key in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body']}</svg>"
    ).encode()


def _files(style: str, table: Mapping[Code, Name], tarball_of: Tarballs) -> Iterator[Drawing]:
    members = read_members(tarball_of(STYLES[style].package), lambda path: path.endswith(".webp"))
    for path in sorted(members):
        code = parse_code(PurePosixPath(path).stem)
        label = table[code].label if code in table else ""
        yield (code if label else None), label, members[path]


def _openmoji(style: str, table: Mapping[Code, Name], tarball_of: Tarballs) -> Iterator[Drawing]:
    tarball = tarball_of(STYLES[style].package)
    members = read_members(
        tarball,
        lambda path: path == "data/openmoji.json" or _is_openmoji_color_svg(path),
    )
    for entry in json.loads(members["data/openmoji.json"]):
        source = members.get(f"color/svg/{entry['hexcode']}.svg")
        if source is not None:
            yield parse_code(entry["hexcode"]), entry["annotation"], source


def _is_openmoji_color_svg(path: str) -> bool:
    return path.startswith("color/svg/") and path.endswith(".svg")


_LAYOUTS = {"iconify": _iconify, "files": _files, "openmoji": _openmoji}
