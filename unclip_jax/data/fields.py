"""What a batch holds: the one description that open_dataset, the decoder and the cache all read."""

from dataclasses import dataclass
from typing import Literal

from unclip_jax.config.needs import Window
from unclip_jax.data.index import UNSEEN, empty
from unclip_jax.data.keys import IMAGE_EXTENSIONS, extension
from unclip_jax.errors import UserError

EMBEDDING_KINDS = ("image", "text", "text_states")


def stored_name(kind: str) -> str:
    """Returns what stored features of a kind are called, in batches and as files."""
    return kind if kind == "text_states" else f"{kind}_embedding"


class BadSample(Exception):
    """This sample cannot be used: `reason` is counted, `detail` is for the report."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class BatchFields:
    """The arrays of a batch, and how they are made from a sample.

    Attributes:
      image_sizes: square sides in pixels; each gives "image_<side>" uint8 [B, side, side, 3], all
        from one decode and one crop.
      window: a random part of each picture instead of the whole, [B, window.side, window.side, 3];
        for one size only.
      context_length: L of "tokens" int32 [B, L]; None for no tokens.
      embeddings: of "image", "text", each giving "<kind>_embedding" float32 [B, D], and
        "text_states", float16 [B, L, W]; see `embeddings.py` and `unclip embed`.
      caption_fields: member names that may hold the caption, first found wins; "json:<key>" reads
        the caption (or list of captions) under a key of the sample's json.
      caption_choice: "first" or "random" among several captions (lists in json).
      empty_caption: "substitute" counts a sample without text as bad; "keep" trains on it as the
        empty text.
      crop: "center" or "random" square of the shorter side; random crops shrink to `min_crop` of
        that side (1 only shifts the square).
      flip: mirrors half of the pictures, left to right.
      quality: decoded side over wanted side before the last resize, 1 (fast) or 2 (closer to a full
        decode; see docs/data.md).
      min_side: smaller pictures are bad samples; max_pixels: larger ones are; max_aspect: those
        are whose longer side is more than so many times the shorter.
    """

    image_sizes: tuple[int, ...] = ()
    window: Window | None = None
    context_length: int | None = None
    embeddings: tuple[str, ...] = ()
    caption_fields: tuple[str, ...] = ("txt", "text", "caption")
    caption_choice: Literal["first", "random"] = "first"
    empty_caption: Literal["substitute", "keep"] = "substitute"
    crop: Literal["center", "random"] = "center"
    min_crop: float = 1.0
    flip: bool = False
    quality: Literal[1, 2] = 1
    min_side: int = 1
    max_pixels: int = 64_000_000
    max_aspect: float | None = None

    def __post_init__(self):
        unknown = sorted(set(self.embeddings) - set(EMBEDDING_KINDS))
        if unknown:
            raise UserError(f"embeddings: {unknown[0]!r} is not one of {EMBEDDING_KINDS}")
        if not (self.image_sizes or self.context_length or self.embeddings):
            raise UserError("a batch needs image_sizes, context_length or embeddings")
        if any(size < 1 for size in self.image_sizes):
            raise UserError(f"image_sizes {self.image_sizes} must be positive")
        if self.window and (len(self.image_sizes) != 1 or self.window.side > self.image_sizes[0]):
            raise UserError(
                f"a window of {self.window.side} px needs pictures of one size that holds it, not "
                f"image_sizes {self.image_sizes}"
            )
        if not 0 < self.min_crop <= 1:
            raise UserError(f"min_crop is {self.min_crop}; it must be in (0, 1]")
        if {"text", "text_states"} & set(self.embeddings) and self.caption_choice == "random":
            raise UserError(
                "caption_choice 'random' and text embeddings contradict each other: the stored "
                "embedding belongs to the first caption; use caption_choice 'first'"
            )
        moved = self.crop == "random" or self.flip or self.window
        if "image" in self.embeddings and self.image_sizes and moved:
            raise UserError(
                "random crops, windows or flips and image embeddings contradict each other: the "
                "stored embedding belongs to the centre crop; use crop 'center' and flip False"
            )

    @property
    def reads_text(self) -> bool:
        return self.context_length is not None

    @property
    def is_random(self) -> bool:
        """Whether a sample looks different from epoch to epoch."""
        moved = self.crop == "random" or self.flip or self.window is not None
        return moved or self.caption_choice == "random"

    def lacks(self, names: tuple[str, ...], mask: int) -> list[str]:
        """Returns what a sample with the fields of `mask` (bits over `names`) has not got.

        That is "image" or "caption": a field that is not there, or that is empty and may not be.
        """
        if UNSEEN in names:
            return []
        present = {name for bit, name in enumerate(names) if mask >> bit & 1}
        filled = {name for name in present if empty(name) not in present}
        lacking = []
        if self.image_sizes and not any(extension(name) in IMAGE_EXTENSIONS for name in filled):
            lacking.append("image")
        if self.reads_text:
            captions = {field.partition(":")[0] for field in self.caption_fields}
            if not captions & (present if self.empty_caption == "keep" else filled):
                lacking.append("caption")
        return lacking

    def keeps(self, names: tuple[str, ...], mask: int) -> bool:
        """Whether a sample that has the fields of `mask` (bits over `names`) is in the epoch."""
        return not self.lacks(names, mask)
