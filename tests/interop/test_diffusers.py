"""diffusers folders: bit-equal both ways, the pictures that diffusers draws, clear refusals.

The recorded pictures are those of diffusers' own pipeline, run on our export with our noise by
tests/oracles/test_diffusers_pipeline.py.
"""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from karlo_cascade import draw, make_cascade, make_stage

from unclip_jax.cli import main
from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import read_bundle
from unclip_jax.interop.diffusers import read_folder, write_folder
from unclip_jax.stages import features
from unclip_jax.stages.clip import make_clip

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "karlo.npz"


@pytest.fixture(scope="module")
def cascade():
    return make_cascade()


@pytest.fixture(scope="module")
def folder(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("diffusers") / "karlo"
    write_folder(cascade, path)
    return path


def test_the_pictures_are_those_of_diffusers(cascade):
    found = draw(cascade)["large"] / 2 + 0.5
    assert np.abs(found - np.load(VECTORS)["pictures"]).max() < 1e-3


def test_weights_come_back_bit_for_bit(cascade, folder):
    found = read_folder(folder)
    assert list(found.named()) == ["clip", "prior", "decoder", "upsampler"]
    for name, stage in found.named().items():
        original = trees.flatten(cascade.named()[name].params)
        read = trees.flatten(stage.params)
        towers = ("vision", "logit_scale") if name == "clip" else ()  # not in such a folder
        assert read.keys() - {"logit_scale"} == {k for k in original if not k.startswith(towers)}
        for path in read.keys() - {"logit_scale"}:
            np.testing.assert_array_equal(read[path], original[path], err_msg=path)
        if name != "clip":  # of which half was written
            theirs = cascade.named()[name].config
            assert stage.config.model == theirs.model
            assert stage.config.diffusion == theirs.diffusion
            assert stage.config.sampling.clip_range == theirs.sampling.clip_range
    for key, value in cascade.prior.statistics.items():
        np.testing.assert_array_equal(found.prior.statistics[key], value)


def test_a_folder_comes_back_byte_for_byte(folder, tmp_path):
    write_folder(read_folder(folder), tmp_path / "again")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_one_network_for_all_steps_is_written_twice_and_read_once(cascade, tmp_path):
    upsampler = make_stage("upsampler", last_step="shared")
    write_folder(dataclasses.replace(cascade, upsamplers=(upsampler,)), tmp_path / "shared")
    [found] = read_folder(tmp_path / "shared").upsamplers
    assert found.model.last_step == "shared"
    jax.tree.map(np.testing.assert_array_equal, found.params, upsampler.params)


def test_large_components_are_split_as_diffusers_splits_them(cascade, folder, tmp_path):
    write_folder(cascade, tmp_path / "split", max_file_bytes=20_000)
    index = json.loads(
        (tmp_path / "split/decoder/diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    assert len(set(index["weight_map"].values())) > 2
    found, whole = read_folder(tmp_path / "split"), read_folder(folder)
    jax.tree.map(np.testing.assert_array_equal, found.decoder.params, whole.decoder.params)


def test_the_command_makes_a_bundle_and_a_folder_again(folder, tmp_path, capsys):
    bundle, again = tmp_path / "bundle", tmp_path / "again"
    assert main(["import", "diffusers", str(folder), "--out", str(bundle)]) == 0
    assert "upsampler" in capsys.readouterr().out
    stage = read_bundle(bundle).cascade.decoder
    assert stage.provenance["imported"]["format"] == "diffusers"
    command = ["export", "--workdir", str(bundle), "--format", "diffusers", "--out", str(again)]
    assert main(command) == 0
    for name in ("prior", "decoder", "text_proj", "super_res_first", "super_res_last"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert (folder / file).read_bytes() == (again / file).read_bytes()


def test_kandinskys_prior_becomes_a_clip_and_a_prior(cascade, folder, tmp_path):
    """Its folder is karlo's without the rest, and calls the scheduler by another name."""
    write_folder(cascade, tmp_path / "variation", layout="variation")
    theirs = tmp_path / "kandinsky"
    shutil.copytree(folder, theirs, ignore=shutil.ignore_patterns("decoder*", "super_res*"))
    shutil.copytree(tmp_path / "variation/image_encoder", theirs / "image_encoder")
    (theirs / "prior_scheduler").rename(theirs / "scheduler")
    index = {"_class_name": "KandinskyV22PriorPipeline", "prior": ["diffusers", "PriorTransformer"]}
    (theirs / "model_index.json").write_text(json.dumps(index))
    found = read_folder(theirs)
    assert list(found.named()) == ["clip", "prior"]
    assert found.clip.model.towers == "both"
    jax.tree.map(np.testing.assert_array_equal, found.prior.params, cascade.prior.params)
    assert found.prior.config.sampling.clip_range == cascade.prior.config.sampling.clip_range


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("prior/config.json", "norm_in_type", "layer", "norm_in_type is 'layer'"),
        ("decoder/config.json", "resnet_time_scale_shift", "default", "resnet_time_scale_shift"),
        ("decoder/config.json", "new_option", 3, "new_option is 3"),
        ("text_proj/config.json", "time_embed_dim", 7, "time_embed_dim is 7"),
        ("super_res_last/config.json", "sample_size", 64, "sample_size is 64"),
        ("decoder_scheduler/scheduler_config.json", "beta_schedule", "x", "beta_schedule 'x'"),
        ("model_index.json", "_class_name", "FluxPipeline", "is of 'FluxPipeline'"),
    ],
)
def test_options_that_we_do_not_have_are_named(folder, tmp_path, file, key, value, words):
    shutil.copytree(folder, tmp_path / "k")
    path = tmp_path / "k" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=words):
        read_folder(tmp_path / "k")


@pytest.mark.parametrize(
    ("kind", "model", "words"),
    [
        ("prior", {"null_text": "learned"}, "prior has null_text='learned'"),
        ("prior", {"embedding_scale": "unit"}, "embedding_scale='unit'"),
        ("decoder", {"null_text": "learned"}, "decoder has null_text='learned'"),
        ("decoder", {"null_text": "empty", "space_to_depth": 2}, "space_to_depth=2"),
        ("upsampler", {"space_to_depth": 2, "crop_fraction": 0.5}, "space_to_depth=2"),
    ],
)
def test_networks_that_diffusers_does_not_have_are_refused(cascade, kind, model, words, tmp_path):
    clip = cascade.clip
    stages = dict(cascade.named())
    stages[kind] = make_stage(kind, None if kind == "upsampler" else clip, **model)
    if model.get("embedding_scale") == "unit":  # which only such a decoder may follow
        stages["decoder"] = make_stage("decoder", clip, embedding_scale="unit")
    with pytest.raises(UserError, match=words):
        write_folder(compose(stages.values()), tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_a_cascade_that_is_not_whole_is_refused(cascade, tmp_path):
    with pytest.raises(UserError, match="needs a prior"):
        write_folder(compose([cascade.clip, cascade.decoder]), tmp_path / "k")
    with pytest.raises(UserError, match=r"no layout 'variations' \(did you mean 'variation'\?\)"):
        write_folder(cascade, tmp_path / "k", layout="variations")


def test_a_clip_without_image_tower_says_so(folder):
    found = read_folder(folder)
    with pytest.raises(UserError, match="no image tower"):
        Pipeline(compose([found.clip])).embed_images(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="no image tower"):
        features.image_embedding(
            make_clip(found.clip.model, "float32"), {"clip": found.clip.params}, {}
        )
