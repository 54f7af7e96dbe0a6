"""Embeddings beside shards: a row for every sample, NaN where there is no picture, resumable."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from unclip_jax import data
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.errors import UserError
from unclip_jax.training.datasets import open_dataset
from unclip_jax.training.embed import embed_shard, pending

MINE = data.Provenance(model="toy", model_hash="abc", normalised=False)


def mean_colour(batch):
    return batch["image_16"].astype(np.float32).mean((1, 2))


def embed(shard, seen=None):
    counts = [] if seen is None else seen
    embed_shard(
        str(shard), mean_colour, MINE, image_size=16, batch_size=8, dtype="float32",
        advance=counts.append,
    )  # fmt: skip


def test_rows_belong_to_their_samples(shards, tmp_path):
    shard = tmp_path / "train.tar"
    shutil.copy(shards / "train-00000.tar", shard)
    seen = []
    embed(shard, seen)
    assert seen == [8, 8, 8]
    dataset = open_dataset(str(shard), BatchNeeds(image_sizes=(16,), embeddings=("image",)))
    for batch in data.eval_batches(dataset, 8):
        np.testing.assert_allclose(batch["image_embedding"], mean_colour(batch), rtol=1e-6)


def test_a_picture_that_cannot_be_read_has_a_row_of_nan(shards, tmp_path):
    shard = tmp_path / "damaged.tar"
    with tarfile.open(shards / "train-00000.tar") as old, tarfile.open(shard, "w") as new:
        for member in old:
            content = old.extractfile(member).read()
            if member.name == "000003.png":
                content = content[:40]
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    embed(shard)
    rows = np.load(tmp_path / "damaged.image_embedding.npy")
    assert rows.shape == (24, 3)
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [3]


def test_only_what_is_missing_or_of_another_model_is_pending(shards, tmp_path):
    names = []
    for i in range(2):
        names.append(str(tmp_path / f"{i}.tar"))
        shutil.copy(shards / "val-00000.tar", names[i])
    embed(names[0])
    assert list(pending(names, MINE)) == [names[1]]
    other = data.Provenance(model="toy", model_hash="other", normalised=False)
    assert list(pending(names, other)) == names


def test_training_without_embeddings_says_what_to_run(shards):
    with pytest.raises(UserError, match="run `unclip embed`"):
        open_dataset(str(shards / "val-00000.tar"), BatchNeeds(embeddings=("image",)))
