"""The loader whole: equal global batches however it is run, exact passes, bad samples, limits."""

import hashlib
import json
import os

import numpy as np
import pytest

from unclip_jax.config.needs import Window
from unclip_jax.data import (
    BatchFields,
    DataPosition,
    Layout,
    ShardError,
    eval_batches,
    host_rows,
    open_dataset,
    train_batches,
)
from unclip_jax.data.bad_samples import BadSamples
from unclip_jax.data.report import Event
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

FIELDS = BatchFields(image_sizes=(16, 8), context_length=12)
CHUNKED = Layout(lanes=8, chunk=4, window=5)


def digest(batch):
    return hashlib.sha256(b"".join(batch[k].tobytes() for k in sorted(batch))).hexdigest()


def run(dataset, steps, *, hosts=1, batch_size=16, **options):
    """Returns (digest of each global batch, last position, bad counts of all hosts)."""
    loaders = [
        train_batches(dataset, batch_size, seed=5, rows=host_rows(batch_size, hosts, h), **options)
        for h in range(hosts)
    ]
    digests, position = [], None
    for _ in range(steps):
        parts = [next(loader) for loader in loaders]
        assert len({p for _, p in parts}) == 1
        names = parts[0][0]
        digests.append(digest({k: np.concatenate([b[k] for b, _ in parts]) for k in names}))
        position = parts[0][1]
    counts = sum((loader.bad.counts for loader in loaders), start=type(loaders[0].bad.counts)())
    for loader in loaders:
        loader.close()
    return digests, position, counts


def corrupt(number, own):
    """Of 90 samples: two broken pictures, one cut, one empty and one unclean caption."""
    (jpg, image), (txt, _), meta = own
    changed = {
        3: [(jpg, b"<html>404</html>"), own[1], meta],
        40: [(jpg, image[:-30]), own[1], meta],
        41: [(jpg, b"junk"), own[1], meta],
        60: [own[0], (txt, b" \n "), meta],
        75: [own[0], (txt, b"na\xefve"), meta],
    }
    return changed.get(number, own)


@pytest.fixture
def dataset(tmp_path, make_shards):
    return open_dataset(make_shards(tmp_path / "s", (40, 30, 20), corrupt), FIELDS)


@pytest.mark.parametrize("layout", [None, CHUNKED])
def test_same_batches_for_any_hosts_and_restart(dataset, layout):
    walked, _, bad = run(dataset, 12, layout=layout)  # more than two epochs
    assert len(set(walked)) == 12
    assert bad["image_decode"] >= 6
    assert bad["caption_empty"] >= 2
    assert bad["caption_recoded"] >= 2
    for hosts in (2, 4, 8):
        digests, _, counts = run(dataset, 12, layout=layout, hosts=hosts)
        assert digests == walked
        assert counts == bad
    _, position, _ = run(dataset, 5, layout=layout)
    restored = DataPosition.from_json(position.to_json())
    assert restored == position
    assert restored.examples == 80
    assert run(dataset, 7, position=restored, hosts=2)[0] == walked[5:]


def test_worker_processes_give_the_same_batches(dataset):
    walked, position, bad = run(dataset, 6, threads=4)
    digests, _, counts = run(dataset, 6, workers=2)
    assert digests == walked
    assert counts == bad
    assert run(dataset, 2, workers=1, hosts=1, position=position)[0] == run(dataset, 8)[0][6:]


def test_an_epoch_shows_every_good_sample_once(dataset):
    """45 batches of 2 are one epoch of the full shuffle; a bad sample's place goes to another."""
    loader = train_batches(dataset, 2, seed=0, max_bad_fraction=1)
    tokens = np.concatenate([next(loader)[0]["tokens"] for _ in range(45)])
    loader.close()
    shown = {row.tobytes() for row in tokens}
    bad = (3, 40, 41, 60)
    captions = [f"picture number {i}" for i in range(90) if i not in (*bad, 75)] + ["na\ufffdve"]
    assert shown == {row.tobytes() for row in tokenize(captions, 12)}
    assert loader.bad.counts["image_decode"] >= 3


def test_a_larger_batch_goes_on_where_a_smaller_stopped(dataset):
    _, position, _ = run(dataset, 4, batch_size=16)
    loader = train_batches(dataset, 32, seed=5, position=position)
    large, after = next(loader)
    loader.close()
    assert after.examples == 4 * 16 + 32
    small = train_batches(dataset, 16, seed=5, position=position)
    rows = np.concatenate([next(small)[0]["image_8"] for _ in range(2)])
    small.close()
    key = sorted(row.tobytes() for row in rows)
    assert sorted(row.tobytes() for row in large["image_8"]) == key


@pytest.mark.parametrize("batch_size", [7, 90, 200])
@pytest.mark.parametrize("hosts", [1, 2])
def test_exact_pass(dataset, batch_size, hosts):
    batch_size *= hosts
    shares = [host_rows(batch_size, hosts, host) for host in range(hosts)]
    per_host = [list(eval_batches(dataset, batch_size, rows=rows)) for rows in shares]
    assert len({len(batches) for batches in per_host}) == 1
    batches = [
        {k: np.concatenate([b[k] for b in parts]) for k in parts[0]}
        for parts in zip(*per_host, strict=True)
    ]
    assert len(batches) == -(-90 // batch_size)
    assert all(len(b["valid"]) == batch_size for b in batches)
    whole = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    good = [i for i in range(90) if i not in (3, 40, 41, 60)]
    np.testing.assert_array_equal(np.flatnonzero(whole["valid"]), good)
    captions = ["na\ufffdve" if i == 75 else f"picture number {i}" for i in good]
    np.testing.assert_array_equal(whole["tokens"][good], tokenize(captions, 12))
    assert not any(whole[k][~whole["valid"]].any() for k in whole)


def test_exact_pass_counts_the_bad(dataset):
    bad = BadSamples(limit=1)
    list(eval_batches(dataset, 32, bad=bad))
    assert bad.counts == {"image_decode": 3, "caption_empty": 1, "caption_recoded": 1}
    assert bad.rows == 90


def test_shapes_and_dtypes(dataset):
    loader = train_batches(dataset, 4, seed=0)
    batch, _ = next(loader)
    loader.close()
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image_16": ((4, 16, 16, 3), "uint8"),
        "image_8": ((4, 8, 8, 3), "uint8"),
        "tokens": ((4, 12), "int32"),
    }


def test_random_views_are_repeatable_and_change_with_the_epoch(tmp_path, make_shards):
    fields = BatchFields(image_sizes=(16,), crop="random", min_crop=0.5, flip=True)
    dataset = open_dataset(make_shards(tmp_path / "s", (8,)), fields)
    first, _, _ = run(dataset, 4, batch_size=8)
    assert run(dataset, 4, batch_size=8, hosts=4)[0] == first
    loader = train_batches(dataset, 8, seed=5)
    pictures = [{row.tobytes() for row in next(loader)[0]["image_16"]} for _ in range(2)]
    loader.close()
    assert not pictures[0] & pictures[1]


def test_windows_are_parts_of_the_pictures(tmp_path, make_shards):
    fields = BatchFields(image_sizes=(16,), window=Window(8, grid=4))
    dataset = open_dataset(make_shards(tmp_path / "s", (20,)), fields)
    [whole] = eval_batches(dataset.uncut(), 20)
    [cut] = eval_batches(dataset, 20)
    assert cut["image_16"].shape == (20, 8, 8, 3)
    places = [(row, column) for row in (0, 4, 8) for column in (0, 4, 8)]
    found = [
        {(r, c) for r, c in places if np.array_equal(picture[r : r + 8, c : c + 8], part)}
        for picture, part in zip(whole["image_16"], cut["image_16"], strict=True)
    ]
    assert all(found)
    assert len(set().union(*found)) > 5
    [again] = eval_batches(dataset, 20)
    np.testing.assert_array_equal(again["image_16"], cut["image_16"])


def test_windows_follow_the_seed_the_epoch_and_the_sample(tmp_path, make_shards):
    fields = BatchFields(image_sizes=(16,), window=Window(4))
    dataset = open_dataset(make_shards(tmp_path / "s", (8,)), fields)
    first, position, _ = run(dataset, 2, batch_size=8)
    assert run(dataset, 2, batch_size=8, hosts=4)[0] == first
    later = run(dataset, 2, batch_size=8, position=position)[0]
    assert run(dataset, 4, batch_size=8)[0] == first + later
    loader = train_batches(dataset, 8, seed=5)
    parts = [{row.tobytes() for row in next(loader)[0]["image_16"]} for _ in range(2)]
    loader.close()
    assert len(parts[0] & parts[1]) < 3  # of 169 places


@pytest.mark.parametrize(
    "fields", [{"image_sizes": (16, 8)}, {"image_sizes": (4,)}, {"context_length": 12}]
)
def test_windows_must_fit(fields):
    with pytest.raises(UserError, match="window of 8 px needs pictures of one size"):
        BatchFields(window=Window(8), **fields)


def test_prior_runs_read_captions_from_memory(dataset, tmp_path, monkeypatch):
    text_only = open_dataset(str(tmp_path / "s"), BatchFields(context_length=12))
    first, _, counts = run(text_only, 12)
    assert run(text_only, 12, hosts=4)[0] == first
    assert counts["caption_empty"] >= 2
    with_images = run(dataset, 0)  # the same class, but rows come from decoding
    assert with_images[0] == []
    loader = train_batches(text_only, 15, seed=0)
    for _ in range(6):
        next(loader)
    monkeypatch.setattr(type(text_only), "read", None)  # every row is known: no more reads
    for _ in range(20):
        assert next(loader)[0]["tokens"].any(axis=1).all()
    loader.close()


def test_too_many_bad_samples_stop_the_run(tmp_path, make_shards):
    broken = lambda i, own: [(own[0][0], b"junk"), *own[1:]] if i % 3 == 0 else own  # noqa: E731
    dataset = open_dataset(make_shards(tmp_path / "s", (30,), broken), FIELDS)
    bad = BadSamples(limit=0.2, after=30, quarantine=str(tmp_path / "bad.jsonl"))
    with pytest.raises(UserError, match=r"10 bad samples in 30 rows \(image_decode 10\)"):
        list(eval_batches(dataset, 30, bad=bad))
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["ordinal"] for line in lines] == list(range(0, 30, 3))
    assert {line["reason"] for line in lines} == {"image_decode"}
    assert lines[1]["key"] == "000000003"


def test_too_many_bad_samples_stay_too_many():
    """Rows are read ahead while a run stops for the earlier ones: good ones take nothing back."""
    bad = BadSamples(limit=0.2, after=10)
    bad.record([Event("image_decode", "a.tar", i, "k", "") for i in range(3)], 10)
    found = bad.too_many
    bad.record([], 1000)
    assert found == bad.too_many
    assert "3 bad samples in 10 rows" in found


def test_all_bad_is_an_error(tmp_path, make_shards):
    broken = lambda i, own: [(own[0][0], b"junk"), *own[1:]]  # noqa: E731
    dataset = open_dataset(make_shards(tmp_path / "s", (30,), broken), FIELDS)
    loader = train_batches(dataset, 4, seed=0)
    with pytest.raises(ShardError, match="16 samples drawn"):
        next(loader)
    loader.close()


def test_shard_that_changes_under_us(dataset, tmp_path):
    path = tmp_path / "s" / "00001.tar"
    os.utime(path, ns=(1, 1))
    with pytest.raises(ShardError, match="changed since the run started"):
        dataset.read(50)
    path.unlink()
    with pytest.raises(ShardError, match="cannot be opened"):
        dataset.read(50)


def test_fingerprint(tmp_path, make_shards):
    first = open_dataset(make_shards(tmp_path / "a", (9, 8)), FIELDS)
    copy = open_dataset(make_shards(tmp_path / "b", (9, 8)), BatchFields(context_length=3))
    assert first.fingerprint == copy.fingerprint
    longer = open_dataset(make_shards(tmp_path / "c", (9, 9)), FIELDS)
    fewer = open_dataset(f"{tmp_path}/a/00000.tar", FIELDS)
    assert len({first.fingerprint, longer.fingerprint, fewer.fingerprint}) == 3
    assert first.select([0]).fingerprint == fewer.fingerprint


def test_positions_that_do_not_fit(dataset, tmp_path, make_shards):
    _, position, _ = run(dataset, 1)
    other = open_dataset(make_shards(tmp_path / "o", (40,)), FIELDS)
    cases = [
        (other, 16, 5, {}, "data set has changed"),
        (dataset, 16, 6, {}, "data seed is 5, not 6"),
        (dataset, 24, 5, {}, "does not fit 16 data lanes"),
        (dataset, 32, 5, {"rows": np.arange(5, 9)}, "do not fit 16 data lanes of 2 rows"),
        (dataset, 16, 5, {"layout": CHUNKED}, "data layout is"),
    ]
    for data, size, seed, options, message in cases:
        with pytest.raises(UserError, match=message):
            train_batches(data, size, seed=seed, position=position, **options)
    for text in ("{}", "nonsense", position.to_json().replace('"version": 1', '"version": 9')):
        with pytest.raises(UserError, match="data position"):
            DataPosition.from_json(text)


def test_missing_fields_are_an_error_before_training(tmp_path, make_shards):
    no_text = lambda i, own: own[:1] if i % 10 == 0 else own  # noqa: E731
    folder = make_shards(tmp_path / "s", (40,), no_text)
    with pytest.raises(UserError, match=r"4 of 40 samples lack.*hold: jpg, json, txt"):
        open_dataset(folder, FIELDS)
    assert len(open_dataset(folder, BatchFields(image_sizes=(8,)))) == 40


def test_empty_captions_can_be_kept(tmp_path, make_shards):
    blank = lambda i, own: [own[0], (own[1][0], b""), own[2]] if i == 2 else own  # noqa: E731
    folder = make_shards(tmp_path / "s", (40,), blank)
    assert len(open_dataset(folder, FIELDS)) == 39
    keep = BatchFields(image_sizes=(8,), context_length=12, empty_caption="keep")
    batch = next(eval_batches(open_dataset(folder, keep), 40))
    assert batch["valid"].all()
    assert (batch["tokens"][2] != 0).sum() == 2


def test_json_captions(tmp_path, make_shards):
    with_caption = lambda i, own: [own[0], (own[2][0], b'{"c": ["one", "two"]}')]  # noqa: E731
    folder = make_shards(tmp_path / "s", (6,), with_caption)
    fields = BatchFields(context_length=8, caption_fields=("json:c",), caption_choice="random")
    loader = train_batches(open_dataset(folder, fields), 6, seed=0)
    rows = np.concatenate([next(loader)[0]["tokens"] for _ in range(6)])
    loader.close()
    both = {row.tobytes() for row in tokenize(["one", "two"], 8)}
    assert {row.tobytes() for row in rows} == both
