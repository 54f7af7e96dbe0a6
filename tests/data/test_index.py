"""Samples of a shard: webdataset's grouping, the side-car file, what is wrong with a shard."""

import gzip
import os

import numpy as np
import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from unclip_jax.data.catalog import summarise
from unclip_jax.data.index import build_index, load_index, load_summary, save_index
from unclip_jax.data.keys import split_name
from unclip_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ("a", "txt")),
        ("d.ir/a.b.c.JPG", ("d.ir/a", "b.c.jpg")),
        ("./0001.jpg", ("./0001", "jpg")),
        ("a/b/c.img_emb.npy", ("a/b/c", "img_emb.npy")),
        (".hidden", None),
        ("._a.jpg", None),
        ("d/._a.jpg", None),
        ("noextension", None),
        ("d.ir/none", None),
        ("__meta__.json", ("__meta__", "json")),
        ("__meta__", None),
        ("__meta__/a.txt", None),
        ("a.", None),
    ],
)
def test_split_name(name, expected):
    assert split_name(name) == (expected if expected else None)


def test_groups_as_webdataset_does(tmp_path, tools):
    path = tmp_path / "a.tar"
    names = ["a.jpg", "a.txt", "d.r/b.x.txt", "d.r/b.jpg", "__x__", "c.TXT", "skip", "c.jpg"]
    tools.write_tar(path, [(name, name.encode()) for name in names])
    index = build_index(path)
    with path.open("rb") as file:
        files = tar_file_expander([{"url": "a.tar", "stream": file}])
        samples = list(group_by_keys(files))
    theirs = [{k for k in sample if not k.startswith("__")} for sample in samples]
    fields = index.summary.fields
    ours = [{f for i, f in enumerate(fields) if mask >> i & 1} for mask in index.masks.tolist()]
    assert ours == theirs
    assert index.summary.samples == 3


def test_problems_are_counted(tmp_path, tools):
    path = tmp_path / "a.tar"
    names = ["a.jpg", "b.jpg", "a.txt", "b.txt", "c.jpg", "c.jpg", "c.txt"]
    tools.write_tar(path, [(name, b"x" * 600) for name in names])
    path.write_bytes(path.read_bytes()[: 1536 * 6 + 600])
    index = build_index(path)
    assert index.summary.problems == {
        "interleaved_key": 2,
        "duplicate_field": 1,
        "truncated": 1,
        "lost_bytes": 600,
    }
    assert index.summary.samples == 5  # the parts of a and b count as four


def test_round_trip(tmp_path, make_shards):
    shard = os.path.join(make_shards(tmp_path / "s", (7,)), "00000.tar")
    index = build_index(shard)
    save_index(index, tmp_path / "i")
    loaded = load_index(tmp_path / "i")
    assert loaded.summary == index.summary == load_summary(tmp_path / "i")
    np.testing.assert_array_equal(loaded.offsets, index.offsets)
    np.testing.assert_array_equal(loaded.masks, index.masks)


def test_damaged_index_is_not_used(tmp_path, make_shards):
    shard = os.path.join(make_shards(tmp_path / "s", (7,)), "00000.tar")
    save_index(build_index(shard), tmp_path / "i")
    content = bytearray((tmp_path / "i").read_bytes())
    content[-3] ^= 1
    (tmp_path / "i").write_bytes(content)
    assert load_index(tmp_path / "i") is None
    (tmp_path / "i").write_bytes(b"something else")
    assert load_summary(tmp_path / "i") is None


def test_built_once_and_again_when_the_shard_changes(tmp_path, make_shards):
    shard = os.path.join(make_shards(tmp_path / "s", (7,)), "00000.tar")
    assert summarise(shard).summary.samples == 7
    built = os.stat(shard + ".uidx").st_mtime_ns
    summarise(shard)
    assert os.stat(shard + ".uidx").st_mtime_ns == built
    make_shards(tmp_path / "s", (9,))
    assert summarise(shard).summary.samples == 9
    assert sorted(os.listdir(tmp_path / "s")) == ["00000.tar", "00000.tar.uidx"]


def test_index_dir(tmp_path, make_shards):
    shard = os.path.join(make_shards(tmp_path / "s", (3,)), "00000.tar")
    found = summarise(shard, str(tmp_path / "indexes" / "deep"))
    assert os.path.dirname(found.index_path) == str(tmp_path / "indexes" / "deep")
    assert os.listdir(tmp_path / "s") == ["00000.tar"]
    assert summarise(shard, str(tmp_path / "indexes" / "deep")).memory is None


def test_unwritable_folder_keeps_the_index_in_memory(tmp_path, make_shards, caplog):
    shard = os.path.join(make_shards(tmp_path / "s", (3,)), "00000.tar")
    (tmp_path / "file").write_text("in the way")
    found = summarise(shard, str(tmp_path / "file"))
    assert found.memory.summary.samples == 3
    assert "in memory only" in caplog.text


def test_unusable_shards(tmp_path, make_shards):
    with pytest.raises(UserError, match=r"missing\.tar: no such shard"):
        build_index(tmp_path / "missing.tar")
    (tmp_path / "zero.tar").touch()
    with pytest.raises(UserError, match="empty"):
        build_index(tmp_path / "zero.tar")
    shard = os.path.join(make_shards(tmp_path / "s", (3,)), "00000.tar")
    with open(shard, "rb") as file:
        (tmp_path / "a.tar").write_bytes(gzip.compress(file.read()))
    with pytest.raises(UserError, match=r"gzip-compressed.*unclip data convert"):
        build_index(tmp_path / "a.tar")


def test_keys_with_dots_are_explained(tmp_path, tools):
    path = tmp_path / "a.tar"
    tools.write_tar(path, [(f"img.{i}.jpg", b"x") for i in range(70)])
    with pytest.raises(UserError, match="first dot"):
        build_index(path)
