"""`unclip eval`: the right captions, pictures and embeddings go into the reports."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.cli.held_out import read_held_out
from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import write_bundle

STYLES = ("flat", "round")
CONCEPTS = ("sun", "moon", "star", "sea")


def write_split(path, picture_size=16, broken=()):
    """Pictures of every concept in every style, whose colour says which sample they are."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i, (concept, style) in enumerate((c, s) for c in CONCEPTS for s in STYLES):
            buffer = io.BytesIO()
            Image.new("RGB", (picture_size, picture_size), (20 * i, 255 - 20 * i, 9)).save(
                buffer, "PNG"
            )
            members = {
                "png": b"no picture" if i in broken else buffer.getvalue(),
                "txt": f"{concept}, {style} style".encode(),
                "json": json.dumps({"concept": concept, "style": style}).encode(),
            }
            for field, content in members.items():
                info = tarfile.TarInfo(f"{i:06d}.{field}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_split(folder / "val_style-00000.tar")
    write_split(folder / "val_concept-00000.tar", broken=(2,))
    return folder


@pytest.fixture(scope="module")
def bundle(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "bundle"
    write_bundle(cascade, path)
    return path


@pytest.fixture(scope="module")
def evaluated(bundle, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    command = ["eval", "--bundle", str(bundle), "--data", str(data), "--out", str(out)]
    assert main([*command, "--seed", "5", "--limit", "8", "--batch-size", "8"]) == 0
    return out


def test_all_files_are_written(evaluated):
    names = {str(p.relative_to(evaluated)) for p in evaluated.rglob("*") if p.is_file()}
    reports = {"report.md", "report.json"}
    assert names == reports | {f"prior/{n}" for n in reports} | {"grid.png", "evaluation.json"}
    with Image.open(evaluated / "grid.png") as grid:
        assert grid.size[1] > 15 * 16


def cosine(a, b):
    return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def test_the_reports_are_of_the_right_pictures_and_captions(evaluated, cascade, data):
    """Cosines by hand: prompts in the order of the splits, real pictures beside their captions."""
    pipeline = Pipeline(cascade)
    captions = [f"{c}, {s} style" for c in CONCEPTS for s in STYLES]
    captions += [caption for i, caption in enumerate(captions) if i != 2]
    drawn = pipeline(captions, images_per_prompt=1, seed=5, batch_size=8)
    colours = list(range(8)) + [i for i in range(8) if i != 2]
    real = np.array([(20 * i, 255 - 20 * i, 9) for i in colours], np.uint8)
    real = np.broadcast_to(real[:, None, None], (15, 16, 16, 3))
    z, true = pipeline.embed_images(drawn.images[:, 0]), pipeline.embed_images(real)
    text = pipeline.embed_texts(captions)

    report = json.loads((evaluated / "report.json").read_text())["splits"]
    prior = json.loads((evaluated / "prior" / "report.json").read_text())["splits"]
    for split, rows in (("val_style", slice(0, 8)), ("val_concept", slice(8, 15))):
        measured = report[split]
        assert measured["clip_score"]["count"] == rows.stop - rows.start
        assert measured["clip_score"]["value"] == pytest.approx(cosine(z[rows], text[rows]))
        assert measured["clip_score"]["ceiling"] == pytest.approx(cosine(true[rows], text[rows]))
        got = measured["clip_cosine_to_real"]["value"]
        assert got == pytest.approx(cosine(z[rows], true[rows]), abs=1e-6)
        sampled = prior[split]["sampled_cosine_to_image"]["value"]
        wanted = cosine(drawn.embeddings[rows, 0], true[rows])
        assert sampled == pytest.approx(wanted, abs=1e-6)
        assert 0 <= measured["style_accuracy"]["value"] <= 1


def test_what_was_measured_is_recorded(evaluated, data):
    record = json.loads((evaluated / "evaluation.json").read_text())
    assert (record["seed"], record["limit"]) == (5, 8)
    assert record["sampling"]["decoder"]["steps"] == 3
    held_out = read_held_out(data, list(record["data"]), sizes=[8], limit=None, seed=0)
    assert record["data"] == held_out.fingerprints


def test_held_out_samples_keep_their_labels(data, capsys):
    found = read_held_out(data, ["val_style", "val_concept"], sizes=[8, 16], limit=4, seed=1)
    assert found.splits.count("val_style") == 4
    for i, caption in enumerate(found.captions):
        assert caption == f"{found.concepts[i]}, {found.styles[i]} style"
        number = CONCEPTS.index(found.concepts[i]) * 2 + STYLES.index(found.styles[i])
        for size in (8, 16):
            picture = found.pictures[size][i]
            assert picture.shape == (size, size, 3)
            np.testing.assert_array_equal(picture[0, 0], (20 * number, 255 - 20 * number, 9))
    other = read_held_out(data, ["val_style"], sizes=[8], limit=4, seed=2)
    assert other.captions != found.captions[:4]


def test_samples_that_cannot_be_read_are_left_out_and_counted(data, tmp_path, capsys):
    found = read_held_out(data, ["val_concept"], sizes=[8], limit=None, seed=0)
    assert len(found.captions) == 7
    assert "val_concept: 1 of 8 samples can't be read" in capsys.readouterr().err
    write_split(tmp_path / "bad-0.tar", broken=range(8))
    with pytest.raises(UserError, match="split 'bad': none of 8 samples has a picture"):
        read_held_out(tmp_path, ["bad"], sizes=[8], limit=None, seed=0)


def test_bad_input_is_one_line_and_exit_code_2(bundle, data, tmp_path, capsys, cascade):
    write_bundle(compose([cascade.clip, cascade.prior]), tmp_path / "half")
    options = {"--bundle": str(bundle), "--data": str(data), "--out": str(tmp_path / "out")}
    for changes, words in (
        ({"--bundle": str(tmp_path / "half")}, "the bundle has no decoder"),
        ({"--data": str(tmp_path)}, "no file matches this pattern"),
        ({"--splits": "test"}, "test-*.tar"),
        ({"--sampler": "euler"}, "no sampler 'euler'"),
    ):
        arguments = [text for pair in (options | changes).items() for text in pair]
        assert main(["eval", *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()[-1:]
        assert words in line
