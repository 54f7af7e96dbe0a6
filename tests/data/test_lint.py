"""The linter finds each planted fault, and the commands print what it found."""

import argparse
import gzip
import json
from pathlib import Path

import pytest

from unclip_jax.cli import data_digest, data_index, data_lint
from unclip_jax.data import BatchFields, eval_batches, open_dataset
from unclip_jax.data.lint import ADVICE, Finding, lint_shards
from unclip_jax.errors import UserError


def arguments(module, *argv):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([str(a) for a in argv])


def plant(number, own):
    (jpg, _), (txt, _), meta = own
    changed = {
        1: [(jpg, b"<html>"), own[1], meta],
        2: [own[0], (txt, b"\xef\xbb\xbfbom"), meta],
        3: [own[0], meta],
        4: [own[1], meta],
        5: [own[0], (txt, b""), meta],
        6: [own[0], own[0], own[1], meta],
        7: [own[0], (txt, b"&nbsp;"), meta],
        8: [(jpg, b"same"), own[1]],
        9: [(jpg, b"same"), own[1]],
    }
    return changed.get(number, own)


@pytest.fixture
def folder(tmp_path, make_shards, tools):
    make_shards(tmp_path, (12,), plant)
    (jpg, image), txt, meta = tools.sample_members(0, "a")
    names = [("a.jpg", image), ("b.jpg", image), ("a.txt", b"x"), ("b.txt", b"y")]
    tools.write_tar(tmp_path / "interleaved.tar", names)
    tools.write_tar(tmp_path / "cut.tar", [(jpg, image), txt, meta])
    content = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: content.index(meta[0].encode()) + 515])
    (tmp_path / "zip.tar").write_bytes(gzip.compress(content))
    (tmp_path / "zero.tar").touch()
    return tmp_path


def paths(folder):
    return [*sorted(str(path) for path in folder.glob("*.tar")), str(folder / "gone.tar")]


def test_headers(folder):
    report = lint_shards(paths(folder))
    assert not report.ok
    unreadable = {
        Path(f.shard).name: f.detail for f in report.findings if f.problem == "unreadable"
    }
    assert set(unreadable) == {"zip.tar", "zero.tar", "gone.tar"}
    assert "gzip" in unreadable["zip.tar"]
    rest = {(Path(f.shard).name, f.problem): f.count for f in report.findings}
    assert {k: v for k, v in rest.items() if k[1] != "unreadable"} == {
        ("00000.tar", "duplicate_field"): 1,
        ("00000.tar", "missing_image"): 1,
        ("00000.tar", "missing_caption"): 2,
        ("interleaved.tar", "interleaved_key"): 2,
        ("interleaved.tar", "missing_image"): 2,
        ("interleaved.tar", "missing_caption"): 2,
        ("cut.tar", "truncated"): 1,
    }
    assert report.samples == 12 + 4 + 1
    assert report.fields["jpg"] == 11 + 2 + 1


def test_content(folder):
    shard = str(folder / "00000.tar")
    report = lint_shards([shard], content=True)
    assert report.ok
    assert report.totals() == {
        "duplicate_field": 1,
        "missing_image": 1,
        "missing_caption": 2,
        "image_decode": 3,
        "caption_recoded": 1,
        "caption_empty": 2,
        "repeated_image": 2,
    }
    decode = next(f for f in report.findings if f.problem == "image_decode")
    assert decode.detail.startswith("first 000000001: not a picture")


def test_every_problem_has_advice(folder):
    report = lint_shards(paths(folder), content=True)
    assert set(report.totals()) <= set(ADVICE)


def test_clean_shards(tmp_path, make_shards):
    report = lint_shards([f"{make_shards(tmp_path / 's', (4,))}/00000.tar"], content=True)
    assert report.ok
    assert report.findings == []


def test_lint_command(folder, capsys):
    assert data_lint.run(arguments(data_lint, folder, folder / "gone.tar")) == 1
    out = capsys.readouterr().out
    assert "missing_caption: 4" in out
    assert "no such shard" in out
    assert data_lint.run(arguments(data_lint, folder / "00000.tar")) == 0
    assert data_lint.run(arguments(data_lint, folder / "00000.tar", "--strict")) == 1
    capsys.readouterr()
    data_lint.run(arguments(data_lint, folder / "00000.tar", "--json"))
    printed = capsys.readouterr().out
    report = json.loads(printed[printed.index("{") :])
    assert Finding(**report["findings"][0]).problem in ADVICE


def test_index_command(tmp_path, make_shards, capsys):
    folder = make_shards(tmp_path / "s", (4, 5))
    assert data_index.run(arguments(data_index, folder)) == 0
    assert "2 shards, 9 samples" in capsys.readouterr().out
    assert (tmp_path / "s" / "00001.tar.uidx").exists()


def test_digest_command(tmp_path, make_shards, capsys):
    options = ["--batches", 3, "--batch-size", 4, "--image-size", 8, "--content"]
    printed = []
    for name in ("a", "b"):
        folder = make_shards(tmp_path / name, (10,))
        assert data_digest.run(arguments(data_digest, folder, *options)) == 0
        printed.append(capsys.readouterr().out.replace(str(tmp_path / name), ""))
    assert printed[0] == printed[1]
    assert printed[0].count("until example") == 3
    assert data_digest.run(arguments(data_digest, folder, "--batches", 1, "--seed", 9)) == 0
    assert capsys.readouterr().out.splitlines()[1] not in printed[0]


def test_clean_samples_are_known_before_training(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (100,), plant)
    fields = BatchFields(image_sizes=(16,), context_length=12)
    with pytest.raises(UserError, match="'clean' needs `unclip data lint --content`"):
        open_dataset(folder, fields, where=["clean"])
    lint_shards([f"{folder}/00000.tar"], content=True)
    everything = next(eval_batches(open_dataset(folder, fields), 100))
    clean = open_dataset(folder, fields, where=["clean"])
    assert 0 < len(clean) == int(everything["valid"].sum()) < 97
    assert next(eval_batches(clean, len(clean)))["valid"].all()
    both = open_dataset(folder, fields, where=["clean", "number >= 20"])
    assert 0 < len(both) < len(clean)
