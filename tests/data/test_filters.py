"""Filters on the samples' json: what passes, what is remembered, what the order sees."""

import json

import numpy as np
import pytest

from unclip_jax.data import BatchFields, eval_batches, open_dataset
from unclip_jax.data.catalog import summarise
from unclip_jax.data.filters import Filter, keep_mask, parse_filter
from unclip_jax.data.lint import lint_shards
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

FIELDS = BatchFields(context_length=12)


def test_parse():
    assert parse_filter("aesthetic>=5.5") == Filter("aesthetic", ">=", 5.5)
    assert parse_filter(' status == "success" ') == Filter("status", "==", "success")
    assert parse_filter("status == success") == Filter("status", "==", "success")
    assert parse_filter("a.b != null") == Filter("a.b", "!=", None)
    for bad in ("aesthetic", "aesthetic ~ 5", "a >=", ">= 5"):
        with pytest.raises(UserError, match="write it as"):
            parse_filter(bad)


@pytest.mark.parametrize(
    ("text", "record", "passes"),
    [
        ("x > 1", {"x": 2}, True),
        ("x > 2", {"x": 2}, False),
        ("x >= 2", {"x": 2.0}, True),
        ("x < 2", {"x": "1"}, False),
        ("x > 0", {"x": True}, False),
        ("x > 0", {"x": None}, False),
        ("x > 0", {}, False),
        ("x != 1", {}, False),
        ("x.y == 1", {"x": {"y": 1}}, True),
        ("x.y == 1", {"x": 3}, False),
        ("x > 0", [1], False),
        ("x <= b", {"x": "a"}, True),
    ],
)
def test_passes(text, record, passes):
    assert parse_filter(text).passes(record) == passes


def scored(number, own):
    content = b"{broken" if number == 4 else json.dumps({"score": number % 7, "n": number}).encode()
    return [own[0], own[1], (own[2][0], content)]


def test_data_set_of_what_passes(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (20, 15), scored)
    dataset = open_dataset(folder, FIELDS, where=["score >= 5", "n < 30"])
    expected = [i for i in range(30) if i % 7 >= 5 and i != 4]
    batch = next(eval_batches(dataset, len(expected)))
    wanted = tokenize([f"picture number {i}" for i in expected], 12)
    np.testing.assert_array_equal(batch["tokens"], wanted)
    assert batch["valid"].all()
    both = [open_dataset(folder, FIELDS, where=[f"n {op} 17"]) for op in (">", "<")]
    prints = {d.fingerprint for d in (*both, dataset, open_dataset(folder, FIELDS))}
    assert len(prints) == 4


def test_equal_counts_of_other_samples_have_another_fingerprint(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (20,), scored)
    even = open_dataset(folder, FIELDS, where=["n >= 15"])
    odd = open_dataset(folder, FIELDS, where=["n < 6"])
    assert len(even) == len(odd) == 5
    assert even.fingerprint != odd.fingerprint


def test_remembered_beside_the_index(tmp_path, make_shards, monkeypatch):
    folder = make_shards(tmp_path / "s", (20,), scored)
    shard = summarise(f"{folder}/00000.tar")
    first = keep_mask(shard, ["n > 9"])
    monkeypatch.setattr("unclip_jax.data.filters._passes", None)
    np.testing.assert_array_equal(keep_mask(shard, ["n > 9"]), first)
    with pytest.raises(TypeError):
        keep_mask(shard, ["n > 8"])  # another filter is another file
    (kept,) = (tmp_path / "s").glob("*.keep")
    kept.write_bytes(b"of something else" + kept.read_bytes())
    with pytest.raises(TypeError):
        keep_mask(shard, ["n > 9"])


def test_nothing_passes(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (5,), scored)
    with pytest.raises(UserError, match=r"no sample .* passes score > 99 and n > 0"):
        open_dataset(folder, FIELDS, where=["score > 99", "n > 0"])


def test_the_linter_counts_what_does_not_pass(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (20,), scored)
    report = lint_shards([f"{folder}/00000.tar"], where=["n >= 15"])
    assert report.totals() == {"filtered": 15}
    assert list((tmp_path / "s").glob("*.keep"))  # remembered for training
