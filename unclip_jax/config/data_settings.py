"""Settings of the data: what is read, and what is made of a sample."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Part:
    """One data set of a mixture: its share of the examples is weight / sum of weights."""

    shards: str
    weight: float = 1.0
    where: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Data:
    """What to read, and what is made of a sample. See docs/data.md.

    Sources are patterns of shards (globs, {000..099}), folders, `tfds:DIR` or `shapes:COUNT`.
    """

    train: str | None = None  # one data set, or
    # several; weights may change in a run. Configs are hashed as static arguments, dicts can't be.
    mixture: dict[str, Part] = field(default_factory=dict, hash=False)
    validation: str | None = None
    where: tuple[str, ...] = ()  # filters of `train` on the samples' json: "aesthetic >= 5"
    embeddings: Literal["computed", "stored"] = "computed"
    text_features: Literal["computed", "stored"] = "computed"  # CLIP's, of captions
    caption_fields: tuple[str, ...] = ("txt", "text", "caption")  # "json:KEY": from the json
    caption_choice: Literal["first", "random"] = "first"
    empty_caption: Literal["substitute", "keep"] = "substitute"
    crop: Literal["center", "random"] = "center"
    min_crop: float = 1.0  # least side of a random crop / shorter side of the picture
    flip: bool = False
    quality: Literal[1, 2] = 1  # decoded side / wanted side before the last resize
    min_side: int = 1  # smaller pictures are bad samples
    max_aspect: float | None = None  # longer side / shorter side; above is a bad sample
    max_bad_fraction: float = 0.01  # more than this of 10,000 rows stops the run
    lanes: int | None = None  # of the order; None chooses by the size of the data
    chunk: int | None = None
    window: int | None = None
    counts: Literal["indexed", "published"] = "indexed"  # where the shards' sizes come from
    missing_shards: Literal["error", "skip"] = "error"
    index_dir: str | None = None  # for read-only or remote shards
    workers: int = 0  # processes that read and decode; 0 uses threads
