"""What a large set brings: published counts, missing shards, manifests, buckets, drawn pictures."""

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from unclip_jax.cli import main as cli
from unclip_jax.data import (
    BatchFields,
    Layout,
    Provenance,
    ShardError,
    eval_batches,
    open_dataset,
    train_batches,
    write_embeddings,
)
from unclip_jax.data import index as index_module
from unclip_jax.data import rows_file as rows_module
from unclip_jax.data.catalog import summarise
from unclip_jax.data.chunks import ChunkCache
from unclip_jax.data.shapes import make_sample
from unclip_jax.errors import UserError

FIELDS = BatchFields(image_sizes=(8,), context_length=12)
LAYOUT = Layout(lanes=4, chunk=8, window=16)


def first(dataset, steps=6, **options):
    loader = train_batches(dataset, 8, seed=2, **options)
    batches = [next(loader)[0] for _ in range(steps)]
    loader.close()
    return batches


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def publish(folder, how):
    """Writes what other tools leave beside shards of 30 and 20 samples."""
    counts = {"00000.tar": 30, "00001.tar": 20}
    if how == "sizes.json":
        (Path(folder) / "sizes.json").write_text(json.dumps(counts))
    for name, count in counts.items():
        path = Path(folder) / name
        if how == "_stats.json":
            stats = {"count": 40, "successes": count, "failed_to_download": 40 - count}
            (Path(folder) / f"{path.stem}_stats.json").write_text(json.dumps(stats))
        if how == ".tar.idx":
            offsets = index_module.build_index(path).offsets.astype("<u8") * 512
            (Path(folder) / f"{name}.idx").write_bytes(offsets.tobytes())


@pytest.mark.parametrize("how", ["_stats.json", "sizes.json", ".tar.idx"])
def test_published_counts_give_the_same_run(tmp_path, make_shards, how, monkeypatch):
    folder = make_shards(tmp_path / "s", (30, 20))
    plain = first(open_dataset(folder, FIELDS), layout=LAYOUT)
    for path in Path(folder).glob("*.uidx"):
        path.unlink()
    publish(folder, how)
    scans = []
    scan = index_module.scan
    monkeypatch.setattr(index_module, "scan", lambda *a: scans.append(a[3]) or scan(*a))
    dataset = open_dataset(folder, FIELDS, counts="published")
    assert len(dataset) == 50
    assert not scans  # opened without a look into the tars
    assert_same(first(dataset, layout=LAYOUT), plain)
    assert bool(scans) == (how != ".tar.idx")
    with pytest.raises(UserError, match="counts 'indexed'"):
        open_dataset(folder, FIELDS, where=["number > 3"], counts="published")


def test_published_counts_that_are_wrong_or_missing(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (30,))
    with pytest.raises(UserError, match="nobody says how many samples"):
        open_dataset(folder, FIELDS, counts="published")
    (Path(folder) / "00000_stats.json").write_text('{"successes": 29}')
    dataset = open_dataset(folder, FIELDS, counts="published")
    with pytest.raises(ShardError, match="has 30 samples, but 29 are published"):
        dataset.read(0)


def test_published_counts_substitute_what_a_sample_lacks(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (30,), lambda i, own: own[:1] if i == 7 else own)
    (Path(folder) / "00000_stats.json").write_text('{"successes": 30}')
    dataset = open_dataset(folder, FIELDS, counts="published")
    batch = next(eval_batches(dataset, 30))
    assert np.flatnonzero(~batch["valid"]).tolist() == [7]


def test_missing_and_empty_shards_are_all_listed(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (12, 9, 11))
    (Path(folder) / "00001.tar").write_bytes(b"")
    spec = f"{folder}/{{00000..00004}}.tar"
    with pytest.raises(UserError, match=r"3 of 5 shards.*00001\.tar.*empty.*00003\.tar: no such"):
        open_dataset(spec, FIELDS)
    dataset = open_dataset(spec, FIELDS, skip_missing=True)
    assert len(dataset) == 12 + 11
    whole = open_dataset([f"{folder}/00000.tar", f"{folder}/00002.tar"], FIELDS)
    assert dataset.fingerprint == whole.fingerprint
    with pytest.raises(UserError, match="2 of 2 shards"):
        open_dataset(f"{folder}/{{00003..00004}}.tar", FIELDS, skip_missing=True)


def test_a_manifest_spares_the_indexes(tmp_path, make_shards, capsys):
    folder = Path(make_shards(tmp_path / "s", (12, 9)))
    assert cli(["data", "index", str(folder)]) == 0
    assert "2 shards, 21 samples" in capsys.readouterr().out
    listed = json.loads((folder / "manifest.json").read_text())
    assert listed["samples"] == 21
    fingerprint = open_dataset(str(folder), FIELDS).fingerprint
    (folder / "00000.uidx").unlink(missing_ok=True)
    (folder / "00000.tar.uidx").rename(folder / "gone")
    assert open_dataset(str(folder), FIELDS).fingerprint == fingerprint
    (folder / "gone").rename(folder / "00000.tar.uidx")
    make_shards(folder, (12, 10))  # changed since
    assert len(open_dataset(str(folder), FIELDS)) == 22
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="is no manifest"):
        open_dataset(str(folder), FIELDS)


@pytest.fixture
def bucket(tmp_path, make_shards, monkeypatch):
    """Two shards in an fsspec file system that is not the disk, and their local copies."""
    cache = ChunkCache(1 << 30)
    monkeypatch.setattr("unclip_jax.data.catalog.CACHE", cache)
    monkeypatch.setattr(rows_module, "CACHE", cache)
    folder = make_shards(tmp_path / "s", (30, 20))
    memory = fsspec.filesystem("memory")
    for path in sorted(Path(folder).glob("*.tar")):
        memory.pipe_file(f"/{tmp_path.name}/{path.name}", path.read_bytes())
    yield f"memory://{tmp_path.name}", folder, str(tmp_path / "index")
    memory.rm(f"/{tmp_path.name}", recursive=True)


def test_a_bucket_is_globbed_and_read_like_a_disk(bucket):
    url, folder, index_dir = bucket
    dataset = open_dataset(f"{url}/*.tar", FIELDS, index_dir=index_dir)
    assert [shard.path.rpartition("/")[2] for shard in dataset.shards] == ["00000.tar", "00001.tar"]
    local = open_dataset(folder, FIELDS)
    assert dataset.fingerprint == local.fingerprint
    assert_same(first(dataset, layout=LAYOUT), first(local, layout=LAYOUT))
    with pytest.raises(UserError, match="no object matches"):
        open_dataset(f"{url}/*.tgz", FIELDS, index_dir=index_dir)


def test_embeddings_beside_shards_on_a_bucket(bucket):
    url, folder, index_dir = bucket
    model = Provenance("toy", "abc", normalised=False)
    fields = BatchFields(context_length=12, embeddings=("image",))
    for shard, count in (("00000.tar", 30), ("00001.tar", 20)):
        rows = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float16)
        for place, where in ((url, index_dir), (folder, None)):
            write_embeddings(f"{place}/{shard}", "image", rows, model, where)
    remote = open_dataset(f"{url}/*.tar", fields, index_dir=index_dir)
    local = open_dataset(folder, fields)
    assert_same(first(remote, layout=LAYOUT), first(local, layout=LAYOUT))
    np.testing.assert_array_equal(remote.statistics("image").mean, local.statistics("image").mean)
    large = np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)  # several blocks
    buffer = io.BytesIO()
    np.save(buffer, large)
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{url}/large.npy".removeprefix("memory:/"), buffer.getvalue())
    ordinals = np.array([149, 0, 64, 63, 128, 64])
    np.testing.assert_array_equal(
        rows_module.open_rows(f"{url}/large.npy")[ordinals], large[ordinals]
    )
    path = f"{url}/00000.image_embedding.npy".removeprefix("memory:/")
    memory.pipe_file(path, memory.cat_file(path)[:-4])
    with pytest.raises(UserError, match="is cut"):
        open_dataset(f"{url}/*.tar", fields, index_dir=index_dir)


def test_shapes_are_drawn_when_they_are_read():
    dataset = open_dataset("shapes:40:unseen:16:3", FIELDS)
    assert len(dataset) == 40
    _, caption, truth = make_sample(3, "unseen", 5, 16)
    members = dataset.read(5)[1]
    assert bytes(members["txt"]).decode() == caption
    assert json.loads(bytes(members["json"]))["objects"] == json.loads(json.dumps(truth))["objects"]
    assert_same(first(dataset), first(open_dataset("shapes:40:unseen:16:3", FIELDS)))
    assert open_dataset("shapes:40", FIELDS).fingerprint != dataset.fingerprint
    for wrong in ("shapes:", "shapes:0", "shapes:9:test", "shapes:9:train:4", "shapes:x"):
        with pytest.raises(UserError, match="write shapes:COUNT"):
            open_dataset(wrong, FIELDS)


def test_the_index_command_goes_on_where_it_was(tmp_path, make_shards, monkeypatch):
    folder = make_shards(tmp_path / "s", (12, 9))
    summarise(f"{folder}/00000.tar")
    scans = []
    scan = index_module.scan
    monkeypatch.setattr(index_module, "scan", lambda *a: scans.append(a[3]) or scan(*a))
    assert cli(["data", "index", folder]) == 0
    assert scans == [f"{folder}/00001.tar"]
