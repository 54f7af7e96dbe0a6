"""The data room's datasets, opened with what a stage needs."""

from unclip_jax import data
from unclip_jax.config.needs import BatchNeeds


def open_dataset(shards: str, needs: BatchNeeds) -> data.Dataset:
    """The samples of the shards that the pattern names, as the stage needs them."""
    fields = data.BatchFields(
        image_sizes=needs.image_sizes,
        context_length=needs.context_length,
        embeddings=needs.embeddings,
    )
    return data.open_dataset(shards, fields)
