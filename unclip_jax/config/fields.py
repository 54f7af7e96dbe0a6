"""What a stage asks of the data: the one thing that both rooms know about each other."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchFields:
    """Fields of a batch.

    Attributes:
      image_sizes: for each S a field `image_S`, uint8 [B, S, S, 3].
      context_length: length L of the field `tokens`, int32 [B, L]; None leaves it out.
      embeddings: any of "image" and "text": fields `image_embedding`, `text_embedding`,
        float32 [B, D], read from the side-cars of the shards.
    """

    image_sizes: tuple[int, ...] = ()
    context_length: int | None = None
    embeddings: tuple[str, ...] = ()
