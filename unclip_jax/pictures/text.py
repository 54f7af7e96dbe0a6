"""Labels on pictures: a font with wide coverage, and wrapping to a width in pixels."""

import functools
from pathlib import Path

import matplotlib
from PIL import ImageFont

Font = ImageFont.FreeTypeFont
ELLIPSIS = "…"


@functools.cache
def load_font(size: int, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib brings along, at `size` pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def line_height(font: Font) -> int:
    """Distance in pixels from one line of text to the next."""
    ascent, descent = font.getmetrics()
    return ascent + descent


def wrap(text: str, font: Font, width: float, max_lines: int) -> list[str]:
    """Breaks `text` at spaces into lines no wider than `width` pixels.

    A word wider than a line is broken inside. What does not fit `max_lines` is replaced by an
    ellipsis at the end of the last line.
    """
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines += _pieces(word, font, width)
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        while lines and lines[-1] and font.getlength(lines[-1] + ELLIPSIS) > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] = lines[-1].rstrip() + ELLIPSIS
    return lines


def _pieces(word: str, font: Font, width: float) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
