"""Pictures whose captions can be checked: coloured shapes, side by side, above each other, counted.

"a red circle", "three blue squares", "a green star to the left of a white ring": which colours,
shapes, sides and numbers a picture has is known exactly, and stands in its json, so a sample's
alignment with its prompt can be measured without a judge. One tenth of the (colour, shape) pairs is
kept from the training split: composing them is the test. Sample i is a pure function of
(seed, split, i).
"""

import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unclip_jax.data.catalog import Members
from unclip_jax.data.embeddings import SideCar
from unclip_jax.data.index import Summary
from unclip_jax.data.order import mix
from unclip_jax.data.shard_writer import Sample, write_shards
from unclip_jax.errors import UserError

PREFIX = "shapes:"
COLOURS = {
    "red": (220, 40, 40),
    "green": (50, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (245, 205, 50),
    "orange": (240, 140, 40),
    "purple": (140, 70, 190),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "ring")
NUMBERS = ("one", "two", "three", "four")
RELATIONS = ("to the left of", "above")
BACKGROUND = (150, 158, 165)
Split = Literal["train", "unseen"]
_SMOOTHING = 4  # drawn so many times larger, then averaged down
_Box = tuple[float, float, float, float]


def pairs(split: Split) -> list[tuple[str, str]]:
    """Returns the (colour, shape) pairs of a split: every tenth pair is unseen in training."""
    every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    unseen = [pair for i, pair in enumerate(every) if (i * 7 + 3) % 10 == 0]
    return unseen if split == "unseen" else [pair for pair in every if pair not in unseen]


def make_sample(seed: int, split: Split, number: int, side: int) -> tuple[np.ndarray, str, dict]:
    """Returns (picture uint8 [side, side, 3], caption, the truth about it)."""
    rng = np.random.default_rng(mix(seed, split == "unseen", number))
    choices = pairs(split)
    kind = ("one", "several", "two")[rng.integers(3)]
    (colour, shape), other = (choices[i] for i in rng.choice(len(choices), 2, replace=False))
    if kind == "one":
        caption, things = (
            f"{_article(colour)} {colour} {shape}",
            [(colour, shape, _place(rng, 1, 0))],
        )
    elif kind == "several":
        count = int(rng.integers(2, 5))
        caption = f"{NUMBERS[count - 1]} {colour} {shape}s"
        taken = rng.permutation(4)[:count].tolist()
        things = [(colour, shape, _place(rng, 2, cell)) for cell in taken]
    else:
        relation = RELATIONS[rng.integers(2)]
        first, second = f"{colour} {shape}", f"{other[0]} {other[1]}"
        caption = f"{_article(first)} {first} {relation} {_article(second)} {second}"
        cells = (0, 1) if relation == "to the left of" else (0, 2)
        shift = int(rng.integers(2)) * (2 if relation == "to the left of" else 1)
        things = [
            (colour, shape, _place(rng, 2, cells[0] + shift)),
            (*other, _place(rng, 2, cells[1] + shift)),
        ]
    truth = {
        "caption": caption,
        "kind": kind,
        "objects": [{"colour": c, "shape": s, "box": box} for c, s, box in things],
    }
    return _draw(things, side), caption, truth


def members(seed: int, split: Split, number: int, side: int) -> dict[str, bytes]:
    """Returns a sample as shards keep it: png, txt and json."""
    picture, caption, truth = make_sample(seed, split, number, side)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return {
        "png": buffer.getvalue(),
        "txt": caption.encode(),
        "json": json.dumps(truth).encode(),
    }


@dataclass(frozen=True)
class ShapesShard:
    """Samples that are drawn when they are read."""

    count: int
    split: Split
    side: int
    seed: int

    @property
    def path(self) -> str:
        return f"{PREFIX}{self.count}:{self.split}:{self.side}:{self.seed}"

    @property
    def summary(self) -> Summary:
        identity = zlib.crc32(self.path.encode())
        return Summary(0, 0, self.count, ("png", "txt", "json"), {7: self.count}, {}, identity)

    @property
    def is_local(self) -> bool:
        return True

    @property
    def cache_path(self) -> str | None:
        return None

    def masks(self) -> NDArray[np.uint64]:
        return np.full(self.count, 7, np.uint64)

    def read(self, ordinal: int) -> tuple[str, Members]:
        own = members(self.seed, self.split, ordinal, self.side)
        return f"{ordinal:09d}", {name: memoryview(content) for name, content in own.items()}

    def side_car(self, kind: str) -> SideCar:
        raise UserError(
            f"{self.path}: drawn pictures have no stored {kind} embeddings; make shards of them "
            "with `unclip data shapes`"
        )


def open_shapes(name: str) -> ShapesShard:
    """Opens `shapes:COUNT[:SPLIT[:SIDE[:SEED]]]`, generated on the fly. Raises UserError."""
    given = name.removeprefix(PREFIX).split(":")
    count, split, side, seed = given + ["", "train", "64", "0"][len(given) :]
    numbers_are_good = all(text.isdigit() for text in (count, side, seed))
    if not numbers_are_good or not int(count) or int(side) < 8 or split not in ("train", "unseen"):
        raise UserError(f"{name}: write shapes:COUNT[:train|unseen[:SIDE[:SEED]]], SIDE from 8 on")
    return ShapesShard(int(count), "train" if split == "train" else "unseen", int(side), int(seed))


def samples(seed: int, split: Split, count: int, side: int) -> Iterator[Sample]:
    """Yields `count` samples as shards keep them."""
    for number in range(count):
        yield f"{number:09d}", members(seed, split, number, side)


def write_shapes(
    out: str | Path,
    count: int,
    *,
    split: Split = "train",
    side: int = 64,
    seed: int = 0,
    samples_per_shard: int = 10_000,
) -> list[Path]:
    """Writes the set as shards in a folder and returns their paths."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    return list(write_shards(samples(seed, split, count, side), out, samples_per_shard))


def _place(rng: np.random.Generator, cells: int, cell: int) -> _Box:
    """Returns a box in [0, 1]² inside cell `cell` of a cells x cells grid."""
    width = 1 / cells
    size = width * rng.uniform(0.55, 0.8)
    left, top = rng.uniform(0.04, 0.96, 2) * (width - size)
    x, y = cell % cells * width + left, cell // cells * width + top
    return round(x, 4), round(y, 4), round(x + size, 4), round(y + size, 4)


def _draw(things: list[tuple[str, str, _Box]], side: int) -> np.ndarray:
    large = side * _SMOOTHING
    image = Image.new("RGB", (large, large), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for colour, shape, box in things:
        x0, y0, x1, y1 = (value * large for value in box)
        ink = COLOURS[colour]
        if shape == "circle":
            pen.ellipse((x0, y0, x1, y1), fill=ink)
        elif shape == "square":
            pen.rectangle((x0, y0, x1, y1), fill=ink)
        elif shape == "ring":
            pen.ellipse((x0, y0, x1, y1), outline=ink, width=round((x1 - x0) * 0.22))
        elif shape == "triangle":
            pen.polygon([((x0 + x1) / 2, y0), (x1, y1), (x0, y1)], fill=ink)
        else:
            pen.polygon(_star(x0, y0, x1 - x0), fill=ink)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _star(x: float, y: float, size: float) -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        radius = size / 2 * (1 if corner % 2 == 0 else 0.42)
        angle = math.pi * corner / 5 - math.pi / 2
        middle = size / 2
        points.append(
            (x + middle + radius * math.cos(angle), y + middle + radius * math.sin(angle))
        )
    return points


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
