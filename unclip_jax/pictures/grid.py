"""A table of pictures with labelled rows and columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unclip_jax.pictures.canvas import (
    FAINT_INK,
    GAP,
    LABEL_SIZE,
    MARGIN,
    TITLE_SIZE,
    Sheet,
    cell_side,
    check_pictures,
)
from unclip_jax.pictures.text import line_height, load_font, wrap

Picture = UInt8[np.ndarray, "height width 3"]

_ROW_LABEL_WIDTH = 220
_COLUMN_LABEL_LINES = 3
_TITLE_LINES = 2


def labelled_grid(
    images: Sequence[Sequence[Picture | None]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Draws `images[row][column]` as a table.

    Args:
      images: pictures uint8 [height, width, 3]; None leaves a cell empty. Sizes may differ: each
        picture is enlarged by the largest whole number that fits its cell (nearest neighbour).
      row_labels: one for each row, written at its left; long ones are wrapped.
      column_labels: one for each column, written above it.
      title: written at the top.
      scale: enlargement of the largest picture; None chooses one that is pleasant to look at.

    Raises:
      ValueError: labels or rows that do not fit together, or an array that is no picture.
    """
    columns = len(images[0]) if images else 0
    _check_shape(images, columns, row_labels, column_labels)
    side = cell_side(check_pictures(_present(images)), scale)
    label, heading = load_font(LABEL_SIZE), load_font(TITLE_SIZE, bold=True)
    line = line_height(label)

    rows = [wrap(text, label, _ROW_LABEL_WIDTH, max(1, side // line)) for text in row_labels or ()]
    tops = [wrap(text, label, side, _COLUMN_LABEL_LINES) for text in column_labels or ()]
    label_width = round(max((label.getlength(text) for row in rows for text in row), default=0))
    left = MARGIN + (label_width + 2 * GAP if rows else 0)
    table_width = columns * (side + GAP) - GAP
    width = left + table_width + MARGIN
    titles = wrap(title or "", heading, width - 2 * MARGIN, _TITLE_LINES)
    titles_height = len(titles) * line_height(heading) + (GAP if titles else 0)
    labels_height = max(map(len, tops), default=0) * line + (GAP if tops else 0)
    top = MARGIN + titles_height + labels_height
    sheet = Sheet(width, top + len(images) * (side + GAP) - GAP + MARGIN)

    sheet.write(titles, heading, (MARGIN, MARGIN))
    for column, lines in enumerate(tops):
        centre = left + column * (side + GAP) + side / 2
        sheet.write(lines, label, (centre, top - GAP - len(lines) * line), align="centre")
    for row, lines in enumerate(rows):
        middle = top + row * (side + GAP) + (side - len(lines) * line) / 2
        sheet.write(lines, label, (left - 2 * GAP, middle), align="right", ink=FAINT_INK)
    for row, pictures in enumerate(images):
        for column, picture in enumerate(pictures):
            if picture is not None:
                place = left + column * (side + GAP), top + row * (side + GAP)
                sheet.put(picture, *place, side)
    return sheet.image


def _present(images: Sequence[Sequence[Picture | None]]) -> list[Picture]:
    return [picture for row in images for picture in row if picture is not None]


def _check_shape(
    images: Sequence[Sequence[Picture | None]],
    columns: int,
    row_labels: Sequence[str] | None,
    column_labels: Sequence[str] | None,
) -> None:
    if any(len(row) != columns for row in images):
        raise ValueError(f"rows differ in length: {[len(row) for row in images]}")
    for name, labels, count in (
        ("row", row_labels, len(images)),
        ("column", column_labels, columns),
    ):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{len(labels)} {name} labels for {count} {name}s")
