"""Plain folders, what an img2dataset run leaves, and conversion to well-formed shards."""

import argparse
import json
import tarfile

import numpy as np
import pytest

from unclip_jax.cli import data_convert
from unclip_jax.data import BatchFields, eval_batches, open_dataset, train_batches
from unclip_jax.data.convert import convert
from unclip_jax.data.lint import lint_shards
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

FIELDS = BatchFields(image_sizes=(8,), context_length=12)


@pytest.fixture
def pictures(tmp_path, tools):
    """Three captioned pictures in two folders, names with dots, and things to pass over."""
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    for number, name in enumerate(["b.v2.png", "sub/c.JPG", "a.webp"]):
        kind = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[name.rsplit(".", 1)[1].lower()]
        (root / name).write_bytes(tools.encode(tools.picture(number), kind))
        (root / name).with_suffix(".txt").write_text(f"caption of {name}")
    (root / "a.json").write_text('{"score": 3}')
    (root / "readme.md").write_text("x")
    (root / ".git" / "d.png").write_bytes(b"x")
    return root


def rows(dataset):
    batch = next(eval_batches(dataset, len(dataset)))
    assert batch["valid"].all()
    return batch


def test_folder_is_read_in_order_of_names(pictures):
    batch = rows(open_dataset(str(pictures), FIELDS))
    captions = ["caption of a.webp", "caption of b.v2.png", "caption of sub/c.JPG"]
    np.testing.assert_array_equal(batch["tokens"], tokenize(captions, 12))


def test_folder_trains_and_notices_changes(pictures):
    dataset = open_dataset(str(pictures), FIELDS)
    loader = train_batches(dataset, 2, seed=0, workers=0)
    seen = np.concatenate([next(loader)[0]["tokens"] for _ in range(3)])
    loader.close()
    assert len({row.tobytes() for row in seen}) == 3
    (pictures / "a.txt").write_text("caption of another")
    assert open_dataset(str(pictures), FIELDS).fingerprint != dataset.fingerprint


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_captions_in_a_table(pictures, table):
    captions = {"a.webp": 'one, "quoted"', "b.v2.png": "two", "sub/c.JPG": "three"}
    if table.endswith("csv"):
        lines = ["file_name,text", 'a.webp,"one, ""quoted"""', "b.v2.png,two", "sub/c.JPG,three"]
    else:
        lines = [json.dumps({"file_name": k, "text": v}) for k, v in captions.items()]
    (pictures / table).write_text("\n".join(lines))
    batch = rows(open_dataset(str(pictures), FIELDS))
    np.testing.assert_array_equal(batch["tokens"], tokenize(list(captions.values()), 12))
    (pictures / table).write_text("file_name,caption\na.webp,x" if "csv" in table else '{"a": 1}')
    with pytest.raises(UserError, match="file_name and text"):
        open_dataset(str(pictures), FIELDS)


def test_filters_work_on_folders(pictures):
    assert len(open_dataset(str(pictures), FIELDS, where=["score >= 3"])) == 1


def test_img2dataset_layout(tmp_path, tools):
    """Unordered 9-digit keys, png and jpg mixed, stats and parquet beside, a gap in the shards."""
    for shard in (0, 2):
        members = []
        for row in (3, 0, 7, 4):
            key = f"{shard:05d}{row:04d}"
            kind = "png" if row == 7 else "jpg"
            picture = tools.encode(tools.picture(row), "PNG" if kind == "png" else "JPEG")
            record = json.dumps({"key": key, "status": "success"}, indent=4).encode()
            members += [(f"{key}.{kind}", picture), (f"{key}.json", record)]
            members += [(f"{key}.txt", f"caption {key}".encode())]
        tools.write_tar(tmp_path / f"{shard:05d}.tar", members, format=tarfile.PAX_FORMAT)
        (tmp_path / f"{shard:05d}_stats.json").write_text('{"successes": 4}')
        (tmp_path / f"{shard:05d}.parquet").write_bytes(b"PAR1")
    dataset = open_dataset(str(tmp_path), FIELDS)
    keys = [f"{shard:05d}{row:04d}" for shard in (0, 2) for row in (3, 0, 7, 4)]
    assert [dataset.read(i)[0] for i in range(8)] == keys
    np.testing.assert_array_equal(
        rows(dataset)["tokens"], tokenize([f"caption {key}" for key in keys], 12)
    )


def test_convert_a_folder(pictures, tmp_path):
    paths = convert(pictures, tmp_path / "out", samples_per_shard=2)
    assert [path.name for path in paths] == ["00000.tar", "00001.tar"]
    assert [p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".tar"] == []
    converted = open_dataset(str(tmp_path / "out"), FIELDS)
    plain = open_dataset(str(pictures), FIELDS)
    theirs, ours = rows(converted), rows(plain)
    for name in ours:
        np.testing.assert_array_equal(theirs[name], ours[name])
    record = json.loads(bytes(converted.read(0)[1]["json"]))
    assert record == {"score": 3, "file_name": "a.webp"}
    again = convert(pictures, tmp_path / "again", samples_per_shard=2)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


def test_convert_an_interleaved_compressed_tar(tmp_path, tools):
    samples = [tools.sample_members(i, f"k{i}") for i in range(5)]
    members = [sample[j] for j in range(3) for sample in samples]  # all jpg, all txt, all json
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        plain = tools.write_tar(tmp_path / "plain.tar", members)
        with tarfile.open(plain) as source:
            for member in source:
                archive.addfile(member, source.extractfile(member))
    paths = convert(tmp_path / "a.tar.gz", tmp_path / "out")
    report = lint_shards([str(path) for path in paths], content=True)
    assert report.findings == []
    dataset = open_dataset(str(tmp_path / "out"), FIELDS)
    captions = [f"picture number {i}" for i in range(5)]
    np.testing.assert_array_equal(rows(dataset)["tokens"], tokenize(captions, 12))


def test_mistakes(pictures, tmp_path):
    convert(pictures, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds \.tar files already"):
        convert(pictures, tmp_path / "out")
    with pytest.raises(UserError, match="no such tar"):
        convert(tmp_path / "gone.tar", tmp_path / "new")
    (tmp_path / "bad.tar.gz").write_bytes(b"\x1f\x8b nonsense")
    with pytest.raises(UserError, match="cannot be read to its end"):
        convert(tmp_path / "bad.tar.gz", tmp_path / "new")
    (pictures / "a.json").write_text("{broken")
    with pytest.raises(UserError, match=r"a\.webp is broken"):
        convert(pictures, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="files, no pictures"):
        convert(tmp_path / "empty", tmp_path / "new")


def test_convert_command(pictures, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    data_convert.add_arguments(parser)
    args = parser.parse_args([str(pictures), "--out", str(tmp_path / "out")])
    assert data_convert.run(args) == 0
    assert "3 samples in 1 shards" in capsys.readouterr().out
