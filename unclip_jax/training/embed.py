"""CLIP's embeddings of a set of shards, stored beside them so that training need not repeat it.

One shard at a time, each written whole or not at all, so a stopped job goes on at the shard where
it was, and any number of processes can share the shards. The batch is split over the devices of
this process. Rows are raw CLIP outputs (not normalised), NaN for samples that can't be used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from unclip_jax import data
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel
from unclip_jax.data.storage import write_file
from unclip_jax.data.threads import each
from unclip_jax.errors import UserError
from unclip_jax.stages import features
from unclip_jax.stages.clip import make_clip
from unclip_jax.training.datasets import open_dataset

KINDS = ("image", "text", "text_states")
Embed = Callable[[dict[str, np.ndarray]], dict[str, Array]]


def needs_of(kinds: Sequence[str], clip: ClipModel) -> BatchNeeds:
    """What a batch must hold for these kinds of embeddings."""
    reads_text = "text" in kinds or "text_states" in kinds
    return BatchNeeds(
        image_sizes=(clip.image_size,) if "image" in kinds else (),
        context_length=clip.context_length if reads_text else None,
    )


def make_embed(
    clip: ClipModel,
    params: Any,
    kinds: Sequence[str],
    *,
    compute: str,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
) -> Embed:
    """The compiled batch -> {kind: rows}, with the batch split over `devices`.

    Raises UserError if the batch does not split evenly. None stands for this process's devices.
    """
    devices = jax.local_devices() if devices is None else devices
    if batch_size % len(devices):
        raise UserError(f"batch size {batch_size} does not divide over {len(devices)} devices")
    net = make_clip(clip, compute)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    params = jax.device_put({"clip": params}, NamedSharding(mesh, P()))
    by_row = NamedSharding(mesh, P("data"))

    @jax.jit
    def embed(frozen: Any, batch: dict[str, Array]) -> dict[str, Array]:
        found = {}
        if "image" in kinds:
            found["image"] = features.image_embedding(net, frozen, batch)
        if "tokens" in batch:
            text = features.text_features(net, frozen, batch["tokens"])
            found |= {"text": text.embedding, "text_states": text.states}
        return {kind: found[kind].astype(jnp.float32) for kind in kinds}

    return lambda batch: embed(params, jax.device_put(batch, by_row))


def embed_shard(
    shard: str,
    embed: Embed,
    kinds: Sequence[str],
    provenance: data.Provenance,
    *,
    needs: BatchNeeds,
    batch_size: int,
    dtype: str,
    index_dir: str | None = None,
    advance: Callable[[int], Any],
) -> None:
    """Writes the embeddings of one shard.

    Args:
      embed: batch of `needs` -> {kind: [B, …]}.
      advance: told the number of samples done after each batch.
    """
    dataset = open_dataset(shard, needs, index_dir)
    total = dataset.shards[0].summary.samples
    rows: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    done = 0
    for batch in data.eval_batches(dataset, batch_size):
        valid = batch.pop("valid")
        count = min(batch_size, len(dataset) - done)
        ordinals = np.array([dataset.locate(done + i)[1] for i in range(count)])
        for kind, found in embed(batch).items():
            values = np.asarray(found).astype(dtype)
            shapes[kind] = values.shape[1:]
            flat = values.reshape(batch_size, -1)
            empty = np.full((total, flat.shape[1]), np.nan, dtype)
            rows.setdefault(kind, empty)[ordinals[valid[:count]]] = flat[:count][valid[:count]]
        done += count
        advance(count)
    for kind in kinds:
        item_shape = shapes[kind] if len(shapes[kind]) > 1 else ()
        data.write_embeddings(shard, kind, rows[kind], provenance, index_dir, item_shape)


def pending(
    shards: Sequence[str],
    kinds: Sequence[str],
    provenance: data.Provenance,
    index_dir: str | None = None,
) -> list[str]:
    """The shards that have not all kinds of embeddings of this provenance yet."""

    def is_pending(shard: str) -> bool:
        try:
            dataset = open_dataset(shard, BatchNeeds(embeddings=tuple(kinds)), index_dir)
        except UserError:
            return True
        return any(dataset.provenance(kind) != provenance for kind in kinds)

    found = each(is_pending, shards, "look for embeddings")
    return [shard for shard, waits in zip(shards, found, strict=True) if waits]


def write_statistics(
    shards: Sequence[str], kind: str, path: str, index_dir: str | None = None
) -> data.Moments:
    """Writes mean, deviation and principal components of stored embeddings to an .npz."""
    dataset = data.open_dataset(
        list(shards), data.BatchFields(embeddings=(kind,)), index_dir=index_dir
    )
    found = dataset.statistics(kind)
    made_by = dataset.provenance(kind)
    facts = {"model": made_by.model, "model_hash": made_by.model_hash}
    write_file(path, data.encode_moments(found, **facts, fingerprint=dataset.fingerprint))
    return found
