"""Bundles: exact round trips, whole or not at all, and one clear line for whatever is wrong."""

import hashlib
import json
import os

import jax
import ml_dtypes
import numpy as np
import pytest
from karlo_cascade import make_cascade

from unclip_jax.cli.frozen import load_clip
from unclip_jax.core import trees
from unclip_jax.core.hashing import weights_hash
from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import Extras, bundle, read_bundle, write_bundle

NAMES = ["clip", "prior", "decoder", "upsampler", "upsampler_32"]


@pytest.fixture(scope="module")
def written(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(cascade, path)
    return path


@pytest.fixture
def small(cascade, tmp_path):
    """A bundle of its own for each test that damages it."""
    path = tmp_path / "bundle"
    write_bundle(compose([cascade.clip, cascade.prior]), path)
    return path


def test_a_bundle_is_json_safetensors_and_markdown(written):
    wanted = {f"{n}.safetensors" for n in [*NAMES, "statistics"]} | {"bundle.json", "README.md"}
    assert {p.name for p in written.iterdir()} == wanted | {"tokenizer"}
    assert [p.name for p in written.parent.iterdir()] == ["bundle"]


def test_whoever_may_read_the_card_may_read_the_weights(written):
    assert len({p.stat().st_mode for p in written.iterdir() if p.is_file()}) == 1


def test_what_is_read_is_what_was_written(written, cascade):
    found = read_bundle(written)
    assert list(found.cascade.named()) == NAMES
    for name, stage in found.cascade.named().items():
        original = cascade.named()[name]
        jax.tree.map(np.testing.assert_array_equal, stage.params, original.params)
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(stage.params))
        assert weights_hash(stage.params) == stage.weights_sha256
        for field in ("config", "step", "weights_sha256", "clip_sha256", "provenance"):
            assert getattr(stage, field) == getattr(original, field)
        assert (stage.statistics is None) == (original.statistics is None)
    for key, value in cascade.prior.statistics.items():
        np.testing.assert_array_equal(found.cascade.prior.statistics[key], value)
    text = (written / "bundle.json").read_bytes()
    assert found.sha256 == hashlib.sha256(text).hexdigest()


def test_bundle_json_states_the_facts_of_each_file(written, cascade):
    content = json.loads((written / "bundle.json").read_text())
    assert (content["format"], content["version"]) == ("unclip_jax", 1)
    for name, stage in content["stages"].items():
        original = cascade.named()[name]
        [entry] = stage["files"]
        data = (written / entry["name"]).read_bytes()
        assert entry["name"] == f"{name}.safetensors"
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
        assert stage["parameters"] == sum(x.size for x in jax.tree.leaves(original.params))
        assert stage["config"]["stage"] == original.config.stage


def test_the_files_follow_the_safetensors_format(written, cascade):
    data = (written / "decoder.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert header.pop("__metadata__") == {"format": "unclip_jax"}
    flat = trees.flatten(cascade.decoder.params)
    assert header.keys() == flat.keys()
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
        assert entry["dtype"] == "F32"
        np.testing.assert_array_equal(array, flat[name])


def test_bfloat16_halves_the_size_and_keeps_the_identity(cascade, written, tmp_path):
    write_bundle(cascade, tmp_path / "half", dtype="bfloat16")
    found = read_bundle(tmp_path / "half").cascade.named()
    for name, original in cascade.named().items():
        jax.tree.map(
            lambda got, x: np.testing.assert_array_equal(got, x.astype(ml_dtypes.bfloat16)),
            found[name].params,
            original.params,
        )
        assert found[name].params.keys() == original.params.keys()
        assert found[name].weights_sha256 == original.weights_sha256
    sizes = [(f / "clip.safetensors").stat().st_size for f in (tmp_path / "half", written)]
    assert sizes[0] < 0.52 * sizes[1]


def test_large_stages_are_split_into_several_files(cascade, tmp_path):
    limit = 200_000
    write_bundle(compose([cascade.clip]), tmp_path / "split", max_file_bytes=limit)
    parts = sorted(p for p in (tmp_path / "split").glob("*.safetensors"))
    count = len(parts)
    assert count > 2
    assert [p.name for p in parts] == [
        f"clip-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)
    ]
    # Only the token table is larger than the limit; it has a file to itself.
    assert sum(p.stat().st_size > limit + 10_000 for p in parts) == 1
    found = read_bundle(tmp_path / "split").cascade.clip
    assert weights_hash(found.params) == cascade.clip.weights_sha256


def test_single_stages_can_be_read(small):
    (small / "prior.safetensors").unlink()
    assert list(read_bundle(small, ["clip"]).cascade.named()) == ["clip"]
    with pytest.raises(UserError, match=r"no stage 'decodr'"):
        read_bundle(small, ["decodr"])


def refused(path, *words):
    with pytest.raises(UserError) as error:
        read_bundle(path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "name", ["prior.safetensors", "statistics.safetensors", "tokenizer/vocab.json"]
)
def test_a_missing_file_is_named(small, name):
    (small / name).unlink()
    refused(small, f"bundle/{name} is missing")


@pytest.mark.parametrize("where", [0, 40, -1])
def test_an_altered_byte_is_found(small, where):
    path = small / "prior.safetensors"
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    refused(small, "bundle/prior.safetensors is altered")


def test_a_file_that_is_cut_short_is_found(small):
    path = small / "clip.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    refused(small, "bundle/clip.safetensors is altered")


def _edit(path, change):
    content = json.loads((path / "bundle.json").read_text())
    change(content)
    (path / "bundle.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(version=2), ["format version 2"]),
        (lambda c: c.update(format="other"), ["not the bundle.json of an unclip_jax bundle"]),
        (lambda c: c.pop("stages"), ["bundle.json is altered", "stages"]),
        (lambda c: c["stages"]["prior"].pop("step"), ["bundle.json is altered", "step"]),
        (lambda c: c["stages"]["clip"]["files"][0].pop("sha256"), ["sha256"]),
        (
            lambda c: c["stages"]["clip"]["files"][0].update(name="../clip.safetensors"),
            ["outside of the bundle"],
        ),
        (lambda c: c["stages"]["prior"].update(clip_sha256="0" * 64), ["another CLIP"]),
    ],
)
def test_an_altered_manifest_is_refused(small, change, words):
    _edit(small, change)
    refused(small, *words)


def test_what_is_no_bundle_is_refused(tmp_path, small):
    refused(tmp_path / "nowhere", "nowhere is no bundle")
    refused(tmp_path, "is no bundle: it has no bundle.json")
    (small / "bundle.json").write_text("{")
    refused(small, "bundle.json is altered or cut short")


def test_a_bundle_replaces_a_bundle_and_nothing_else(cascade, small, tmp_path):
    clip = compose([cascade.clip])
    write_bundle(clip, small)
    assert list(read_bundle(small).cascade.named()) == ["clip"]
    assert not (small / "prior.safetensors").exists()
    (tmp_path / "empty").mkdir()
    write_bundle(clip, tmp_path / "empty")

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for taken in ("thesis", "file"):
        with pytest.raises(UserError, match="is no bundle: it is left alone"):
            write_bundle(clip, tmp_path / taken)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_write_that_fails_leaves_the_old_bundle_and_no_litter(cascade, small, monkeypatch):
    before = read_bundle(small).sha256
    monkeypatch.setattr(bundle.model_card, "render", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bundle(cascade, small)
    assert read_bundle(small).sha256 == before
    assert [p.name for p in small.parent.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_named(cascade, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="can't write the bundle"):
        write_bundle(cascade, tmp_path / "file" / "bundle")


def test_int8_quarters_the_size_and_says_what_it_cost(cascade, written, tmp_path):
    write_bundle(compose([cascade.clip, cascade.upsamplers[0]]), tmp_path / "int8", dtype="int8")
    sizes = [(f / "clip.safetensors").stat().st_size for f in (tmp_path / "int8", written)]
    assert sizes[0] < 0.3 * sizes[1]
    found = read_bundle(tmp_path / "int8")
    for name in ("clip", "upsampler"):
        original = trees.flatten(cascade.named()[name].params)
        for path, value in trees.flatten(found.cascade.named()[name].params).items():
            assert value.dtype == np.float32
            if not path.endswith(("kernel", "embedding/embedding")):
                np.testing.assert_array_equal(value, original[path])
            else:  # half a step of the channel's scale
                axis = 1 if path.endswith("embedding") else tuple(range(value.ndim - 1))
                step = np.abs(original[path]).max(axis=axis, keepdims=True) / 127
                assert np.all(np.abs(value - original[path]) <= 0.5001 * step)
        assert found.cascade.named()[name].weights_sha256 == cascade.named()[name].weights_sha256
    quality = found.manifest.quality
    errors = [quality["stages"][n]["weights"] for n in ("clip", "upsampler")]
    errors += quality["outputs"].values()
    assert set(quality["outputs"]) == {"clip_text", "clip_image", "upsampler_step"}
    assert all(1e-4 < error < 0.1 for error in errors)
    assert quality["pictures"] is None  # a part of a cascade draws none
    assert "What int8 cost" in (tmp_path / "int8" / "README.md").read_text()


def test_int8_says_what_it_cost_the_pictures(tmp_path):
    original = make_cascade()
    write_bundle(original, tmp_path / "int8", dtype="int8")
    found = read_bundle(tmp_path / "int8")
    report = found.manifest.quality["pictures"]
    drawn = [
        Pipeline(cascade)([report["prompt"]], images_per_prompt=report["count"], seed=0).images
        for cascade in (original, found.cascade)
    ]
    rmse = np.sqrt(np.mean((drawn[0].astype(int) - drawn[1]) ** 2.0))
    assert report["psnr_db"] == pytest.approx(20 * np.log10(255 / rmse))
    assert 15 < report["psnr_db"] < 60
    assert f"PSNR {report['psnr_db']:.1f} dB" in (tmp_path / "int8" / "README.md").read_text()


def test_the_tokenizer_is_clips(written, cascade):
    folder = written / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert vocabulary["<|endoftext|>"] == 49407
    assert len((folder / "merges.txt").read_text().splitlines()) == 48895
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == cascade.clip.model.context_length


def test_unknown_dtypes_are_refused(cascade, tmp_path):
    with pytest.raises(UserError, match=r"'float16' \(did you mean 'bfloat16'\?\)"):
        write_bundle(cascade, tmp_path / "b", dtype="float16")


def test_pictures_must_be_there_to_be_copied(cascade, tmp_path):
    with pytest.raises(UserError, match="holds no PNG"):
        write_bundle(cascade, tmp_path / "b", extras=Extras(samples=tmp_path))
    assert not (tmp_path / "b").exists()


def test_training_may_build_on_the_clip_of_a_bundle(cascade, written, tmp_path):
    write_bundle(compose([cascade.clip]), tmp_path / "half", dtype="bfloat16")
    for path in (written, tmp_path / "half"):
        clip = load_clip(str(path))
        # The identity of the weights before rounding: what `compose` compares.
        assert clip.sha256 == cascade.clip.weights_sha256
        assert clip.config == cascade.clip.config
