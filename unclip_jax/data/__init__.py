"""Captioned images and CLIP embeddings -> the global batches of a run. See docs/data.md."""

from unclip_jax.data.batches import TrainBatches, eval_batches, train_batches
from unclip_jax.data.captions import caption
from unclip_jax.data.dataset import Dataset, open_dataset
from unclip_jax.data.embedding_writer import write_embeddings
from unclip_jax.data.embeddings import Provenance
from unclip_jax.data.fields import BatchFields
from unclip_jax.data.mixture import Mixture
from unclip_jax.data.order import Layout
from unclip_jax.data.plan import default_layout
from unclip_jax.data.position import DataPosition
from unclip_jax.data.rows import Rows, host_rows
from unclip_jax.data.statistics import Moments, encode_moments, moments
from unclip_jax.data.storage import ShardError

__all__ = [
    "BatchFields",
    "DataPosition",
    "Dataset",
    "Layout",
    "Mixture",
    "Moments",
    "Provenance",
    "Rows",
    "ShardError",
    "TrainBatches",
    "caption",
    "default_layout",
    "encode_moments",
    "eval_batches",
    "host_rows",
    "moments",
    "open_dataset",
    "train_batches",
    "write_embeddings",
]
