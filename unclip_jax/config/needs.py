"""What a stage needs in a batch; how samples are turned into it is the data room's business."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Window:
    """A square of `side` pixels at a random place of a picture, on multiples of `grid` pixels."""

    side: int
    grid: int = 1


@dataclasses.dataclass(frozen=True)
class BatchNeeds:
    """Arrays of a batch.

    Attributes:
      image_sizes: for each S a field `image_S`, uint8 [B, S, S, 3].
      window: what a loss sees of the pictures, `image_S` being [B, side, side, 3] then; previews
        and measurements see them whole.
      context_length: length L of the field `tokens`, int32 [B, L]; None leaves it out.
      embeddings: any of "image", "text" and "text_states": fields `image_embedding`,
        `text_embedding`, float32 [B, D], and `text_states`, float16 [B, L, W], as stored.
    """

    image_sizes: tuple[int, ...] = ()
    window: Window | None = None
    context_length: int | None = None
    embeddings: tuple[str, ...] = ()

    def sides(self) -> dict[str, int]:
        """The side of each field of pictures, as a loss gets it."""
        return {f"image_{s}": self.window.side if self.window else s for s in self.image_sizes}

    def whole(self) -> "BatchNeeds":
        """The same with whole pictures."""
        return dataclasses.replace(self, window=None)
