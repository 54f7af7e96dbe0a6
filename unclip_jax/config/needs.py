"""What a stage needs in a batch; how samples are turned into it is the data room's business."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchNeeds:
    """Arrays of a batch.

    Attributes:
      image_sizes: for each S a field `image_S`, uint8 [B, S, S, 3].
      context_length: length L of the field `tokens`, int32 [B, L]; None leaves it out.
      embeddings: any of "image", "text" and "text_states": fields `image_embedding`,
        `text_embedding`, float32 [B, D], and `text_states`, float16 [B, L, W], as stored.
    """

    image_sizes: tuple[int, ...] = ()
    context_length: int | None = None
    embeddings: tuple[str, ...] = ()
