"""Embeddings beside shards: a row for every sample, NaN where there is none, resumable, shared."""

import argparse
import io
import shutil
import tarfile

import jax
import numpy as np
import pytest

from unclip_jax import data
from unclip_jax.cli import embed as command
from unclip_jax.cli.frozen import FrozenClip
from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.errors import UserError
from unclip_jax.stages import build, features
from unclip_jax.stages.clip import make_clip
from unclip_jax.training.datasets import open_dataset
from unclip_jax.training.embed import KINDS, embed_shard, make_embed, needs_of, pending

MINE = data.Provenance(model="toy", model_hash="abc", normalised=False)
PICTURES = BatchNeeds(image_sizes=(16,))


def mean_colour(batch):
    return {"image": batch["image_16"].astype(np.float32).mean((1, 2))}


def embed(shard, seen=None):
    counts = [] if seen is None else seen
    embed_shard(
        str(shard), mean_colour, ["image"], MINE, needs=PICTURES, batch_size=8, dtype="float32",
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
        expected = mean_colour(batch)["image"]
        np.testing.assert_allclose(batch["image_embedding"], expected, rtol=1e-6)


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
    assert pending(names, ["image"], MINE) == [names[1]]
    assert pending(names, ["image", "text"], MINE) == names
    other = data.Provenance(model="toy", model_hash="other", normalised=False)
    assert pending(names, ["image"], other) == names


def test_training_without_embeddings_says_what_to_run(shards):
    with pytest.raises(UserError, match="run `unclip embed`"):
        open_dataset(str(shards / "val-00000.tar"), BatchNeeds(embeddings=("image",)))


@pytest.fixture(scope="module")
def clip():
    config = load_config("clip:tiny")
    return FrozenClip("toy", config, jax.jit(build(config).init)(jax.random.key(0)), "abc")


def test_two_machines_share_the_shards_and_the_last_writes_statistics(
    shards, tmp_path, clip, monkeypatch, capsys
):
    for name in ("train-00000.tar", "train-00001.tar", "val-00000.tar"):
        shutil.copy(shards / name, tmp_path / name)
    monkeypatch.setattr(command, "load_clip", lambda path: clip)

    def run(*more):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        patterns = ["--clip", "toy", "--shards", f"{tmp_path}/*.tar", "--kinds", *KINDS]
        options = ["--batch-size", "16", "--dtype", "float32", *more]
        assert command.run(parser.parse_args([*patterns, *options])) == 0
        return capsys.readouterr().out

    first = run("--hosts", "2", "--host", "0")
    assert "2 shards embedded" in first
    assert "statistics" not in first
    assert "1 shards embedded" in run("--hosts", "2", "--host", "1")
    assert "0 shards embedded, 3 had" in run()

    needs = BatchNeeds(image_sizes=(16,), context_length=16, embeddings=KINDS)
    dataset = open_dataset(f"{tmp_path}/*.tar", needs)
    batch = next(data.eval_batches(dataset, 50))
    net = make_clip(clip.model, "float32")
    text = jax.jit(lambda p, t: features.text_features(net, {"clip": p}, t))(
        clip.params, batch["tokens"]
    )
    np.testing.assert_allclose(batch["text_embedding"], text.embedding, atol=1e-5)
    np.testing.assert_allclose(batch["text_states"], text.states, atol=2e-3)
    assert batch["text_states"].dtype == np.float16
    stored = features.batch_text(net, {}, batch)
    np.testing.assert_array_equal(stored.mask, text.mask)
    assert stored.states.shape == text.states.shape

    written = np.load(tmp_path / "image_embedding.statistics.npz")
    rows = batch["image_embedding"].astype(np.float64)
    np.testing.assert_allclose(written["mean"], rows.mean(0), atol=1e-9)
    np.testing.assert_allclose(written["std"], rows.std(0), atol=1e-9)
    singular = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / 50
    np.testing.assert_allclose(written["variances"][: len(singular)], singular[:16], atol=1e-9)
    assert written["count"] == 50
    assert str(written["model_hash"]) == "abc"


def test_the_batch_is_split_over_the_devices(clip):
    assert needs_of(["text"], clip.model) == BatchNeeds(context_length=16)
    embed = make_embed(clip.model, clip.params, ["image"], compute="float32", batch_size=8)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    found = embed({"image_16": pictures})["image"]
    assert len({shard.device for shard in found.addressable_shards}) == jax.device_count()
    with pytest.raises(UserError, match="does not divide over 8 devices"):
        make_embed(clip.model, clip.params, ["image"], compute="float32", batch_size=12)
