"""CLIP image embeddings of a set of shards, stored beside them so that training need not repeat it.

One shard at a time, each written whole or not at all, so a stopped job goes on at the shard where
it was. Rows are raw CLIP outputs (not normalised), NaN for pictures that can't be read.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from unclip_jax import data
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.errors import UserError
from unclip_jax.training.datasets import open_dataset

EmbedBatch = Callable[[dict[str, np.ndarray]], jax.Array]


def embed_shard(
    shard: str,
    embed: EmbedBatch,
    provenance: data.Provenance,
    *,
    image_size: int,
    batch_size: int,
    dtype: str,
    advance: Callable[[int], Any],
) -> None:
    """Writes the image embeddings of one shard.

    Args:
      embed: {"image_S": uint8 [B, S, S, 3]} -> [B, D].
      advance: told the number of samples done after each batch.
    """
    dataset = open_dataset(shard, BatchNeeds(image_sizes=(image_size,)))
    rows = np.full((dataset.shards[0].summary.samples, 0), np.nan, np.float32)
    done = 0
    for batch in data.eval_batches(dataset, batch_size):
        valid = batch.pop("valid")
        z = np.asarray(embed(batch), np.float32)
        if not rows.shape[1]:
            rows = np.full((len(rows), z.shape[1]), np.nan, np.float32)
        count = min(batch_size, len(dataset) - done)
        ordinals = np.array([dataset.locate(done + i)[1] for i in range(count)])
        rows[ordinals[valid[:count]]] = z[:count][valid[:count]]
        done += count
        advance(count)
    data.write_embeddings(shard, "image", rows.astype(dtype), provenance)


def pending(shards: list[str], provenance: data.Provenance) -> Iterator[str]:
    """The shards that have no embeddings of this provenance yet."""
    for shard in shards:
        try:
            found = open_dataset(shard, BatchNeeds(embeddings=("image",))).provenance("image")
        except UserError:
            found = None
        if found != provenance:
            yield shard
