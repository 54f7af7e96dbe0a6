"""Pictures with their captions beneath, as cards on a sheet; a card may hold several pictures.

One picture a card shows samples for their prompts; two show, say, the real picture beside the
generated one.
"""

import math
from collections.abc import Sequence

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
from unclip_jax.pictures.grid import Picture
from unclip_jax.pictures.text import line_height, load_font, wrap

_SEAM = 2
_CAPTION_LINES = 3
_TITLE_LINES = 2


def captioned_gallery(
    cards: Sequence[Sequence[Picture]],
    captions: Sequence[str],
    *,
    legend: Sequence[str] | None = None,
    title: str | None = None,
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Draws cards of pictures side by side, each card with its caption beneath.

    Args:
      cards: `cards[i]` are the pictures of caption i, uint8 [height, width, 3]; as many on each.
      captions: one for each card; long ones are wrapped, and cut with an ellipsis after 3 lines.
      legend: what the pictures of a card are, from left to right: ("real", "generated").
      title: written at the top.
      columns: cards in a row; None chooses a sheet somewhat wider than high.
      scale: enlargement of the largest picture; None chooses one that is pleasant to look at.

    Raises:
      ValueError: captions, legend or cards that do not fit together, or no picture.
    """
    per_card = len(cards[0]) if cards else 0
    _check_shape(cards, captions, legend, per_card)
    side = cell_side(check_pictures(picture for card in cards for picture in card), scale)
    label, heading = load_font(LABEL_SIZE), load_font(TITLE_SIZE, bold=True)
    card_width = per_card * (side + _SEAM) - _SEAM
    texts = [wrap(caption, label, card_width, _CAPTION_LINES) for caption in captions]
    card_height = side + GAP // 2 + max(map(len, texts)) * line_height(label)
    if columns is None:
        columns = max(1, round(math.sqrt(1.5 * len(cards) * card_height / card_width)))
    columns = min(columns, len(cards))

    width = 2 * MARGIN + columns * (card_width + 2 * GAP) - 2 * GAP
    titles = wrap(title or "", heading, width - 2 * MARGIN, _TITLE_LINES)
    notes = wrap(_reading(legend), label, width - 2 * MARGIN, _TITLE_LINES)
    note_top = MARGIN + len(titles) * line_height(heading)
    top = note_top + len(notes) * line_height(label) + (GAP if titles or notes else 0)
    rows = math.ceil(len(cards) / columns)
    sheet = Sheet(width, top + rows * (card_height + 2 * GAP) - 2 * GAP + MARGIN)
    sheet.write(titles, heading, (MARGIN, MARGIN))
    sheet.write(notes, label, (MARGIN, note_top), ink=FAINT_INK)
    for index, (card, lines) in enumerate(zip(cards, texts, strict=True)):
        row, column = divmod(index, columns)
        left = MARGIN + column * (card_width + 2 * GAP)
        card_top = top + row * (card_height + 2 * GAP)
        for place, picture in enumerate(card):
            sheet.put(picture, left + place * (side + _SEAM), card_top, side)
        centre = left + card_width / 2
        sheet.write(lines, label, (centre, card_top + side + GAP // 2), align="centre")
    return sheet.image


def _reading(legend: Sequence[str] | None) -> str:
    return "left to right: " + ", ".join(legend) if legend else ""


def _check_shape(
    cards: Sequence[Sequence[Picture]],
    captions: Sequence[str],
    legend: Sequence[str] | None,
    per_card: int,
) -> None:
    if len(captions) != len(cards):
        raise ValueError(f"{len(captions)} captions for {len(cards)} cards")
    if any(len(card) != per_card for card in cards):
        raise ValueError(f"cards differ in length: {[len(card) for card in cards]}")
    if legend is not None and len(legend) != per_card:
        raise ValueError(f"{len(legend)} legend entries for {per_card} pictures on a card")
