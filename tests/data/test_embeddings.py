"""Side-cars: written whole, checked against their shard, read row for row."""

import functools
import io
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from unclip_jax.data import (
    BatchFields,
    Provenance,
    eval_batches,
    moments,
    open_dataset,
    rows_file,
    train_batches,
    write_embeddings,
)
from unclip_jax.errors import UserError

MODEL = Provenance("vit-tiny", "abc123", normalised=False)
BOTH = BatchFields(context_length=16, embeddings=("image", "text"))


def rows(count, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.fixture
def embedded(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (12, 9))
    arrays = {}
    for shard, count in enumerate((12, 9)):
        for kind in ("image", "text"):
            arrays[kind, shard] = rows(count, seed=shard * 2 + (kind == "text"))
            write_embeddings(f"{folder}/{shard:05d}.tar", kind, arrays[kind, shard], MODEL)
    return folder, arrays


def test_rows_go_with_their_samples(embedded):
    folder, arrays = embedded
    dataset = open_dataset(folder, BOTH)
    assert dataset.provenance("image") == MODEL
    assert dataset.specs()["text_embedding"][0] == (6,)
    batches = list(eval_batches(dataset, 8))
    got = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    for kind in ("image", "text"):
        expected = np.concatenate([arrays[kind, 0], arrays[kind, 1]])
        np.testing.assert_array_equal(got[f"{kind}_embedding"][got["valid"]], expected)
    # in a shuffled order, tokens and embeddings still belong together
    by_tokens = {
        got["tokens"][i].tobytes(): got["image_embedding"][i] for i in np.flatnonzero(got["valid"])
    }
    assert len(by_tokens) == 21
    loader = train_batches(dataset, 4, seed=1)
    for _ in range(12):
        batch, _ = next(loader)
        for tokens, embedding in zip(batch["tokens"], batch["image_embedding"], strict=True):
            np.testing.assert_array_equal(by_tokens[tokens.tobytes()], embedding)
    loader.close()


def test_half_precision_is_read_as_float32(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (5,))
    array = rows(5).astype(np.float16)
    write_embeddings(f"{folder}/00000.tar", "image", array, MODEL)
    dataset = open_dataset(folder, BatchFields(embeddings=("image",)))
    got = dataset.embedding_rows("image", np.array([4, 0, 2]))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, array[[4, 0, 2]].astype(np.float32))


def test_kept_samples_find_their_rows(tmp_path, make_shards):
    """A sample left out for a missing field leaves the others' rows in place."""
    folder = make_shards(tmp_path / "s", (40,), lambda i, own: own[:1] if i == 3 else own)
    array = rows(40)
    write_embeddings(f"{folder}/00000.tar", "image", array, MODEL)
    dataset = open_dataset(folder, BatchFields(context_length=8, embeddings=("image",)))
    assert len(dataset) == 39
    np.testing.assert_array_equal(dataset.ordinals(0), np.delete(np.arange(40), 3))
    np.testing.assert_array_equal(
        dataset.embedding_rows("image", np.arange(39)), np.delete(array, 3, axis=0)
    )


@pytest.mark.parametrize("hole", [np.nan, 0.0])
def test_missing_rows_are_substituted_and_masked(tmp_path, make_shards, hole):
    folder = make_shards(tmp_path / "s", (10,))
    array = rows(10)
    array[7] = hole
    write_embeddings(f"{folder}/00000.tar", "image", array, MODEL)
    dataset = open_dataset(folder, BatchFields(embeddings=("image",)))
    batch = next(eval_batches(dataset, 10))
    np.testing.assert_array_equal(np.flatnonzero(~batch["valid"]), [7])
    assert not batch["image_embedding"][7].any()
    loader = train_batches(dataset, 10, seed=0)
    batch, _ = next(loader)
    loader.close()
    assert np.isfinite(batch["image_embedding"]).all()
    assert (batch["image_embedding"] != 0).any(axis=1).all()
    assert loader.bad.counts["image_embedding_missing"] >= 1


def test_wrong_side_cars_are_refused(embedded, make_shards):
    folder, arrays = embedded
    shard = f"{folder}/00001.tar"
    with pytest.raises(UserError, match="one row per sample"):
        write_embeddings(shard, "image", rows(8), MODEL)
    with pytest.raises(UserError, match="float64"):
        write_embeddings(shard, "image", rows(9).astype(float), MODEL)
    with pytest.raises(UserError, match="kind 'clip'"):
        write_embeddings(shard, "clip", rows(9), MODEL)

    write_embeddings(shard, "image", rows(9, width=7), MODEL)
    with pytest.raises(UserError, match=r"00001.*width 7, but .*00000.*has 6"):
        open_dataset(folder, BOTH)
    write_embeddings(shard, "image", rows(9), Provenance("vit-tiny", "other", False))
    with pytest.raises(UserError, match="embed all shards with one model"):
        open_dataset(folder, BOTH)
    write_embeddings(shard, "image", arrays["image", 1], MODEL)
    open_dataset(folder, BOTH)

    make_shards(Path(folder), (12, 10))
    with pytest.raises(UserError, match="made for a tar of 9 samples"):
        open_dataset(folder, BOTH)


def test_half_written_side_car_is_missing(embedded):
    folder, _ = embedded
    (Path(folder) / "00000.text_embedding.json").unlink()
    with pytest.raises(UserError, match=r"no text embeddings.*unclip embed"):
        open_dataset(folder, BOTH)


def test_description_must_fit_the_rows(embedded):
    folder, _ = embedded
    path = Path(folder) / "00000.text_embedding.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "width": 5}))
    with pytest.raises(UserError, match="is described as"):
        open_dataset(folder, BOTH)


def test_statistics():
    array = 3 + rows(1000).astype(np.float64) * np.arange(1, 7)
    holes = array.copy()
    holes[5], holes[900] = np.nan, 0
    found = moments([holes[:1], holes[1:300], holes[300:]])
    kept = np.delete(array, [5, 900], axis=0)
    assert found.count == 998
    np.testing.assert_allclose(found.mean, kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, kept.std(axis=0), rtol=1e-12)
    covariance = np.cov(kept.T, bias=True)
    np.testing.assert_allclose(found.scatter / 998, covariance, rtol=1e-9, atol=1e-9)
    components, variances = found.components()
    np.testing.assert_allclose(components @ components.T, np.eye(6), atol=1e-12)
    rotated = components @ covariance @ components.T
    np.testing.assert_allclose(rotated, np.diag(variances), atol=1e-9)
    assert (np.diff(variances) < 0).all()
    with pytest.raises(UserError, match="every row is missing"):
        moments([np.zeros((3, 2))])


def test_random_views_and_stored_embeddings_contradict():
    with pytest.raises(UserError, match="crops, windows or flips"):
        BatchFields(image_sizes=(8,), embeddings=("image",), flip=True)
    with pytest.raises(UserError, match="first caption"):
        BatchFields(context_length=8, embeddings=("text",), caption_choice="random")


def in_tar(folder, tools, make_shards, array, normalised):
    """A shard whose samples hold their rows; sample 3 has none. With a provenance.json."""
    folder.mkdir(parents=True)

    def add(number, own):
        buffer = io.BytesIO()
        np.save(buffer, array[number])
        return own if number == 3 else [*own, (own[0][0][:-3] + "img_emb.npy", buffer.getvalue())]

    make_shards(folder, (len(array),), add)
    values = {"model": "vit", "model_hash": "abc", "normalised": normalised}
    (folder / "provenance.json").write_text(json.dumps(values))
    return str(folder)


def test_embeddings_in_the_tar(tmp_path, tools, make_shards):
    array = rows(12).astype(np.float16)
    folder = in_tar(tmp_path / "s", tools, make_shards, array, normalised=False)
    dataset = open_dataset(folder, BatchFields(context_length=12, embeddings=("image",)))
    assert dataset.provenance("image") == Provenance("vit", "abc", normalised=False)
    batch = next(eval_batches(dataset, 12))
    assert np.flatnonzero(~batch["valid"]).tolist() == [3]
    expected = np.delete(array, 3, axis=0).astype(np.float32)
    np.testing.assert_array_equal(batch["image_embedding"][batch["valid"]], expected)
    assert dataset.statistics("image").count == 11
    with pytest.raises(UserError, match="no text embeddings"):
        open_dataset(folder, BOTH)


def test_a_norm_that_is_not_as_told_is_an_error(tmp_path, tools, make_shards):
    long, fields = rows(12), BatchFields(embeddings=("image",))
    unit = long / np.linalg.norm(long, axis=1, keepdims=True)
    for name, array, told, message in [
        ("a", long, True, "described as normalised, but its rows have not norm 1"),
        ("b", unit, False, "described as not normalised, but its rows have norm 1"),
    ]:
        folder = in_tar(tmp_path / name, tools, make_shards, array, told)
        with pytest.raises(UserError, match=message):
            open_dataset(folder, fields)
    open_dataset(in_tar(tmp_path / "c", tools, make_shards, unit, True), fields)


def test_many_shards_do_not_use_up_the_files(tmp_path, make_shards, monkeypatch):
    """More side-cars than the process may have open."""
    folder = make_shards(tmp_path / "s", (2,) * 60)
    for shard in range(60):
        write_embeddings(f"{folder}/{shard:05d}.tar", "image", rows(2, seed=shard), MODEL)
    monkeypatch.setattr(rows_file, "_map", functools.lru_cache(8)(rows_file._map.__wrapped__))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
    try:
        dataset = open_dataset(folder, BatchFields(embeddings=("image",)))
        assert len(dataset.embedding_rows("image", np.arange(120))) == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_rows_of_other_samples_are_refused(tmp_path, make_shards, tools):
    """A tar of the same size with the samples in another order."""
    folder = Path(make_shards(tmp_path / "s", (9,)))
    write_embeddings(folder / "00000.tar", "image", rows(9), MODEL)
    members = [m for i in reversed(range(9)) for m in tools.sample_members(i, f"00000{i:04d}")]
    tools.write_tar(folder / "00000.tar", members)
    with pytest.raises(UserError, match=r"row 0 is of sample '000000000', but .* '000000008'"):
        open_dataset(str(folder), BatchFields(embeddings=("image",)))
