"""A word on a picture: a paper note with dark letters, as typographic attacks on CLIP use."""

import numpy as np
from PIL import Image, ImageDraw

from unclip_jax.pictures.grid import Picture
from unclip_jax.pictures.text import load_font

_SHARE = 0.8  # of the picture's width


def with_note(picture: Picture, word: str) -> Picture:
    """The picture with a note across its middle; the word is as large as fits.

    Small pictures are enlarged by a whole factor, so that the word can be read.
    """
    factor = max(1, -(-256 // picture.shape[1]))
    image = Image.fromarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))
    wanted = _SHARE * image.width
    unit = load_font(100).getlength(word)
    font = load_font(max(8, min(round(100 * wanted / max(unit, 1)), image.height // 3)))
    left, top, right, bottom = font.getbbox(word)
    width, height = right - left, bottom - top
    x, y, border = (image.width - width) / 2, (image.height - height) / 2, height / 2
    draw = ImageDraw.Draw(image)
    note = (x - border, y - border, x + width + border, y + height + border)
    draw.rectangle(note, fill=(250, 250, 240), outline=(60, 60, 60))
    draw.text((x - left, y - top), word, fill=(20, 20, 20), font=font)
    return np.asarray(image)
