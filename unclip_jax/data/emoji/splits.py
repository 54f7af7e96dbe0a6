"""Which pictures are for training and which are held out.

Two questions deserve held-out pictures: does the model draw a concept that it has never seen
(`val_concept`), and does it draw a known concept in a style it has never seen it in (`val_style`)?
Membership hangs on hashes of the concept and the style alone, so a picture is in the same split at
every size, with and without skin tones, and in every later build.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from unclip_jax.data.emoji.catalog import Picture
from unclip_jax.data.emoji.names import Code, format_code

SPLITS = ("train", "val_concept", "val_style")
HELD_OUT = 0.04


def unit_hash(purpose: str, *parts: str) -> float:
    """A fixed pseudo-random number in [0, 1) for `parts`, independent between purposes."""
    text = "\0".join((purpose, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


def assign_splits(pictures: Iterable[Picture]) -> list[str]:
    """The split of each picture.

    `val_concept`: 4 % of the concepts, in every style and skin tone. `val_style`: of the other
    concepts, 4 % of the (concept, style) pairs, never the last style of a concept that would be
    left for training.
    """
    pictures = list(pictures)
    styles_of: dict[Code, set[str]] = defaultdict(set)
    for picture in pictures:
        styles_of[picture.name.concept].add(picture.style)
    split_of = {
        (concept, style): split
        for concept, styles in styles_of.items()
        for style, split in _split_concept(format_code(concept), styles).items()
    }
    return [split_of[picture.name.concept, picture.style] for picture in pictures]


def _split_concept(concept: str, styles: set[str]) -> dict[str, str]:
    if unit_hash("concept", concept) < HELD_OUT:
        return dict.fromkeys(styles, "val_concept")
    draws = {style: unit_hash("style", concept, style) for style in styles}
    always_known = max(draws, key=lambda style: draws[style])
    return {
        style: "val_style" if draw < HELD_OUT and style != always_known else "train"
        for style, draw in draws.items()
    }


def choose_concepts(pictures: Sequence[Picture], limit: int | None) -> list[Picture]:
    """The pictures of a fixed pseudo-random choice of at most `limit` concepts; None keeps all."""
    concepts = {picture.name.concept for picture in pictures}
    chosen = set(sorted(concepts, key=lambda code: unit_hash("limit", format_code(code)))[:limit])
    return [picture for picture in pictures if picture.name.concept in chosen]


def shuffle(pictures: Iterable[Picture]) -> list[Picture]:
    """The pictures in a fixed pseudo-random order, so that every shard holds every style."""
    return sorted(
        pictures, key=lambda picture: unit_hash("order", picture.style, format_code(picture.code))
    )
