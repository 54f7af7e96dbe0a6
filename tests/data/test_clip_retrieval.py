"""clip-retrieval folders: rows of arrays and captions stay together."""

import json

import fsspec
import numpy as np
import pytest

from unclip_jax.data import BatchFields, Provenance, eval_batches, open_dataset, train_batches
from unclip_jax.data.convert import convert
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FIELDS = BatchFields(context_length=10, embeddings=("image", "text"))
COUNTS = {"0": 7, "1": 5, "10": 4}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("img_emb", "text_emb", "metadata"):
        (tmp_path / name).mkdir()
    for number, count in COUNTS.items():
        for name in ("img_emb", "text_emb"):
            rows = rng.normal(size=(count, 6))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            np.save(tmp_path / name / f"{name}_{number}.npy", rows.astype(np.float16))
        captions = [f"caption {number} {i}" for i in range(count)]
        table = pyarrow.table({"image_path": captions, "caption": captions})
        parquet.write_table(table, tmp_path / "metadata" / f"metadata_{number}.parquet")
    return tmp_path


def test_rows(folder):
    dataset = open_dataset(str(folder), FIELDS)
    assert len(dataset) == 16
    assert dataset.provenance("image") == Provenance("clip-retrieval", "unknown", True)
    batch = next(eval_batches(dataset, 16))
    assert batch["valid"].all()
    captions = [f"caption {number} {i}" for number, count in COUNTS.items() for i in range(count)]
    np.testing.assert_array_equal(batch["tokens"], tokenize(captions, 10))
    for kind, name in (("image", "img_emb"), ("text", "text_emb")):
        stored = [np.load(folder / name / f"{name}_{number}.npy") for number in COUNTS]
        expected = np.concatenate(stored).astype(np.float32)
        np.testing.assert_array_equal(batch[f"{kind}_embedding"], expected)
    loader = train_batches(dataset, 4, seed=0)
    shown = np.concatenate([next(loader)[0]["tokens"] for _ in range(4)])
    loader.close()
    assert {row.tobytes() for row in shown} == {row.tobytes() for row in batch["tokens"]}


def test_a_bucket_holds_what_a_disk_holds(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "bucket/laion", recursive=True)
    try:
        there, here = (
            open_dataset(str(name), FIELDS) for name in ("memory://bucket/laion/", folder)
        )
        assert not there.is_local
        one, other = (next(eval_batches(dataset, 16)) for dataset in (there, here))
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
        memory.rm("bucket/laion/metadata/metadata_1.parquet")
        with pytest.raises(UserError, match=r"memory://.*metadata_1\.parquet: missing"):
            open_dataset("memory://bucket/laion", FIELDS)
    finally:
        memory.rm("bucket", recursive=True)


def test_provenance(folder):
    record = {"model": "ViT-L-14", "model_hash": "ab12", "normalised": True}
    (folder / "provenance.json").write_text(json.dumps(record))
    assert open_dataset(str(folder), FIELDS).provenance("text") == Provenance(**record)
    (folder / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match="needs model"):
        open_dataset(str(folder), FIELDS)


def test_mistakes(folder):
    np.save(folder / "text_emb" / "text_emb_1.npy", np.zeros((4, 6), np.float16))
    with pytest.raises(UserError, match=r"text_emb_1\.npy: 4 rows, but 5 captions"):
        open_dataset(str(folder), FIELDS)
    (folder / "text_emb" / "text_emb_1.npy").unlink()
    with pytest.raises(UserError, match="no text embeddings for this number"):
        open_dataset(str(folder), FIELDS)
    parquet.write_table(pyarrow.table({"url": ["x"]}), folder / "metadata" / "metadata_1.parquet")
    with pytest.raises(UserError, match="no column 'caption'"):
        open_dataset(str(folder), FIELDS)
    (folder / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(UserError, match=r"metadata_1\.parquet: missing"):
        open_dataset(str(folder), FIELDS)
    captions = pyarrow.table({"caption": ["x"] * 5})
    parquet.write_table(captions, folder / "metadata" / "metadata_1.parquet")
    with pytest.raises(UserError, match="samples lack a wanted field"):
        open_dataset(str(folder), BatchFields(image_sizes=(8,)))


def test_converted_to_shards_that_hold_the_embeddings(folder, tmp_path):
    values = {"model": "vit", "model_hash": "abc", "normalised": True}
    (folder / "provenance.json").write_text(json.dumps(values))
    convert(folder, tmp_path / "out", samples_per_shard=10)
    shards = open_dataset(str(tmp_path / "out"), FIELDS)
    assert len(shards.shards) == 2
    assert shards.provenance("image") == Provenance("vit", "abc", normalised=True)
    one, other = (
        next(eval_batches(dataset, 16)) for dataset in (shards, open_dataset(str(folder), FIELDS))
    )
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
