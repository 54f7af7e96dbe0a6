"""A contact sheet: a few concepts, each in all its styles."""

import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from unclip_jax.data.emoji.catalog import Picture
from unclip_jax.data.emoji.names import Code, format_code
from unclip_jax.data.emoji.packages import STYLES
from unclip_jax.data.emoji.splits import unit_hash
from unclip_jax.pictures.grid import labelled_grid

_CONCEPTS = 12


def write_contact_sheet(path: Path, pictures: Iterable[tuple[Picture, Path]]) -> None:
    """Draws a fixed pseudo-random choice of concepts, those with most styles first.

    Args:
      path: the PNG to write.
      pictures: each picture and the file it has been drawn into.
    """
    drawn: dict[Code, dict[str, tuple[Picture, Path]]] = defaultdict(dict)
    for picture, file in pictures:
        if not picture.name.has_tone:
            drawn[picture.code][picture.style] = (picture, file)

    def preference(code: Code) -> tuple[int, float]:
        return -len(drawn[code]), unit_hash("sheet", format_code(code))

    shown = sorted(drawn, key=preference)[:_CONCEPTS]
    used = {style for code in shown for style in drawn[code]}
    styles = [style for style in STYLES if style in used]
    sheet = labelled_grid(
        [[_open(drawn[code], style) for code in shown] for style in styles],
        row_labels=[STYLES[style].words for style in styles],
        column_labels=[next(iter(drawn[code].values()))[0].name.label for code in shown],
    )
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    path.write_bytes(encoded.getvalue())


def _open(drawn: dict[str, tuple[Picture, Path]], style: str) -> np.ndarray | None:
    if style not in drawn:
        return None
    with Image.open(drawn[style][1]) as image:
        return np.asarray(image.convert("RGB"))
