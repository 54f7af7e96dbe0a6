"""A sheet to put pictures and text on: colours, spacing, whole-number enlargement."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from unclip_jax.pictures.text import Font, line_height

BACKGROUND = (245, 245, 247)
INK = (32, 33, 36)
FAINT_INK = (95, 99, 104)
GAP = 8
MARGIN = 20
LABEL_SIZE = 14
TITLE_SIZE = 20
_COMFORTABLE = 128


class Sheet:
    """A page of fixed size with two operations: put a picture, write lines."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)

    def put(self, picture: np.ndarray, left: int, top: int, side: int) -> None:
        """Puts a picture, enlarged by the largest whole factor that fits, in a square cell."""
        height, width = picture.shape[:2]
        factor = side // max(height, width)
        enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        corner = (left + (side - width * factor) // 2, top + (side - height * factor) // 2)
        self.image.paste(Image.fromarray(enlarged), corner)

    def write(
        self,
        lines: Sequence[str],
        font: Font,
        anchor: tuple[float, float],
        *,
        align: str = "left",
        ink: tuple[int, int, int] = INK,
    ) -> None:
        """Writes lines downwards; `anchor` is the (x, top) of their left, centre or right."""
        x, top = anchor
        for row, line in enumerate(lines):
            place = {"left": "la", "centre": "ma", "right": "ra"}[align]
            self._draw.text(
                (x, top + row * line_height(font)), line, fill=ink, font=font, anchor=place
            )


def check_pictures(pictures: Iterable[np.ndarray]) -> int:
    """The longest side of any picture, in pixels.

    Raises:
      ValueError: no picture, or one that is not uint8 [height, width, 3].
    """
    longest = 0
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture is uint8 [height, width, 3], not {picture.dtype} {picture.shape}"
            )
        longest = max(longest, *picture.shape[:2])
    if longest == 0:
        raise ValueError("there is no picture to show")
    return longest


def cell_side(longest: int, scale: int | None) -> int:
    """Side of a cell for pictures up to `longest` pixels, enlarged by the whole number `scale`.

    None enlarges small pictures to about 128 pixels.
    """
    if scale is None:
        scale = max(1, math.ceil(_COMFORTABLE / longest))
    return longest * scale
