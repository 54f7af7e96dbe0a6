"""Unicode names: which concept a picture shows, under one name in every style.

Icon sets name the same emoji differently ("robot", "robot-face"), so a picture is identified by its
Unicode code, and the name comes from one table (the CLDR short names in emojibase). Skin tones of
one emoji are one concept.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_VARIATION_SELECTOR = 0xFE0F
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_TAG_LETTERS = range(0xE0020, 0xE007F)
_TAG_END = 0xE007F

Code = tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """What is known of one emoji.

    Args:
      label: its short name in English, as captions use it.
      tags: further words for it.
      concept: the code of the emoji without skin tone: itself for most.
      concept_label: the short name that belongs to `concept`.
      has_tone: whether it is the skin-toned form of another emoji.
    """

    label: str
    tags: tuple[str, ...]
    concept: Code
    concept_label: str
    has_tone: bool


def parse_code(text: str) -> Code:
    """The code points in a file name or key such as "0023-FE0F-20e3".

    The variation selector is left out (sets disagree on writing it) and an unterminated
    tag sequence, as in the flags of England, Scotland and Wales, is ended.
    """
    points = [int(part, 16) for part in re.split("[-_]", text)]
    if points[-1] in _TAG_LETTERS:
        points.append(_TAG_END)
    return tuple(point for point in points if point != _VARIATION_SELECTOR)


def format_code(code: Code) -> str:
    """The inverse of `parse_code` for sequences without variation selector: "23-20e3"."""
    return "-".join(f"{point:x}" for point in code)


def is_private(code: Code) -> bool:
    """Whether a code is a set's own invention (logos and other extras), not one of Unicode's."""
    return any(unicodedata.category(chr(point)) == "Co" for point in code)


def normalise(name: str) -> str:
    """A name reduced to what spelling habits share: "flag-for-norway" becomes "flag norway"."""
    words = re.sub("[’'“”\"]", "", name.lower()).replace("&", " and ")
    return re.sub("^flag (for|of) ", "flag ", " ".join(re.findall("[a-z0-9]+", words)))


def load_names(emojibase_data: bytes) -> dict[Code, Name]:
    """The table of all known emoji from emojibase's `en/data.json`, skin tones included."""
    table = {}
    for entry in json.loads(emojibase_data):
        base, label = parse_code(entry["hexcode"]), _plain(entry["label"])
        tags = tuple(entry.get("tags", ()))
        table[base] = Name(label, tags, base, label, has_tone=False)
        for tone in entry.get("skins", ()):
            code, toned_label = parse_code(tone["hexcode"]), _plain(tone["label"])
            table[code] = Name(toned_label, tags, base, label, has_tone=True)
    return table


def name_of(code: Code, label: str, table: Mapping[Code, Name]) -> Name:
    """The table's entry for `code`, else one made from the code and the set's own label."""
    if code in table:
        return table[code]
    base = tuple(point for point in code if point not in _SKIN_TONES)
    label = _plain(label)
    if not 0 < len(base) < len(code):
        return Name(label, (), code, label, has_tone=False)
    base_label = table[base].label if base in table else label
    return Name(label, (), base, base_label, has_tone=True)


def codes_by_name(table: Mapping[Code, Name]) -> dict[str, Code]:
    """Normalised label -> code."""
    return {normalise(name.label): code for code, name in table.items()}


def first_known(names: Iterable[str], codes: Mapping[str, Code]) -> Code | None:
    """The code of the first name that `codes` knows, after normalisation."""
    return next((codes[key] for key in map(normalise, names) if key in codes), None)


def _plain(label: str) -> str:
    return label.replace("’", "'").replace("“", '"').replace("”", '"').strip()
