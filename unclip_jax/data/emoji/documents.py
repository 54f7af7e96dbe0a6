"""The words beside the pictures: each sample's JSON, README.md, LICENSES.md and licence texts."""

import json
import re
from collections.abc import Iterable
from importlib import resources

from unclip_jax.data.emoji.catalog import Picture
from unclip_jax.data.emoji.emoji_set import EmojiSet
from unclip_jax.data.emoji.names import format_code
from unclip_jax.data.emoji.packages import STYLES
from unclip_jax.data.emoji.shards import write_text

_LICENSE_URLS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
_LICENSES_THAT_COME_WITH_THEIR_TEXT = ("Apache-2.0", "MIT")


def metadata(picture: Picture, size: int) -> bytes:
    """The sample's JSON: what is shown, in which style, from where and under which licence."""
    style = STYLES[picture.style]
    fields = {
        "name": picture.name.label,
        "concept": picture.name.concept_label,
        "style": style.words,
        "set": picture.style,
        "tags": list(picture.name.tags),
        "code": format_code(picture.code),
        "license": style.license,
        "credit": style.credit,
        "package": style.package.spec,
        "width": size,
        "height": size,
    }
    return json.dumps(fields, ensure_ascii=False).encode()


def vocabulary(captions: Iterable[str]) -> int:
    """Number of different words, case and punctuation aside."""
    return len({word for caption in captions for word in re.findall(r"\w+", caption.lower())})


def write_documents(emoji_set: EmojiSet) -> None:
    """Writes README.md, LICENSES.md and `licenses/` into the set's folder."""
    folder = emoji_set.directory
    write_text(folder / "README.md", _readme(emoji_set))
    write_text(folder / "LICENSES.md", _licenses(emoji_set))
    (folder / "licenses").mkdir(exist_ok=True)
    texts = resources.files("unclip_jax.data.emoji") / "licenses"
    used = {STYLES[name].license for name in emoji_set.styles}
    for license_id in sorted(used.intersection(_LICENSES_THAT_COME_WITH_THEIR_TEXT)):
        text = (texts / f"{license_id}.txt").read_text(encoding="utf-8")
        write_text(folder / "licenses" / f"{license_id}.txt", text)


def _licenses(emoji_set: EmojiSet) -> str:
    lines = [
        "# Licences of the pictures",
        "",
        "Every picture was redrawn as pixels on a white ground and is otherwise unchanged. Each",
        "sample's JSON names its licence, its credit and the package it comes from.",
        "",
        "| style | copyright | licence | artwork | package |",
        "|---|---|---|---|---|",
    ]
    for name in emoji_set.recipe.styles:
        style = STYLES[name]
        url = _LICENSE_URLS[style.license]
        lines.append(
            f"| {name} | © {style.credit} | [{style.license}]({url}) | {style.source} "
            f"| {style.package.spec} |"
        )
    lines += [
        "",
        "Names and tags come from emojibase-data (© Miles Johnson, MIT) and Unicode CLDR",
        "(© Unicode, Inc., Unicode-3.0).",
    ]
    return "\n".join(lines) + "\n"


def _readme(emoji_set: EmojiSet) -> str:
    recipe = emoji_set.recipe
    rows = [f"| {split} | {count:,} |" for split, count in emoji_set.splits.items()]
    styles = [
        f"| {name} | “taco, {STYLES[name].words}” | {emoji_set.styles.get(name, 0):,} |"
        for name in recipe.styles
    ]
    return "\n".join(
        [
            f"# Emoji set, {recipe.size} px",
            "",
            f"{sum(emoji_set.splits.values()):,} captioned pictures of {emoji_set.concepts:,} "
            "concepts, each drawn in up to",
            f"{len(recipe.styles)} styles ({emoji_set.captions:,} captions, "
            f"{emoji_set.vocabulary:,} words). `contact_sheet.png` shows some.",
            "",
            "| split | pictures |",
            "|---|---|",
            *rows,
            "",
            "* `train`: for training.",
            "* `val_concept`: 4 % of the concepts, in no style part of `train`.",
            "* `val_style`: 4 % of the (concept, style) pairs; `train` has the concept in another "
            "style.",
            "",
            "| style | caption | pictures |",
            "|---|---|---|",
            *styles,
            "",
            "The shards are webdataset tars: `KEY.png` or `KEY.jpg`, `KEY.txt` (the caption) and "
            "`KEY.json` (name, concept,",
            "style, set, tags, code, licence). `stats.json` has the counts, the packages with "
            "their digests and the",
            "SHA-256 of every shard. `LICENSES.md` has the terms: read it before you publish "
            "pictures or weights.",
            "",
        ]
    )
