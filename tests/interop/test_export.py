"""`unclip export`: the averaged weights of runs become a bundle, unless they do not fit."""

import json
import pathlib

import jax
import numpy as np
import optax
import pytest

from unclip_jax.cli import main
from unclip_jax.config import to_mapping
from unclip_jax.core.hashing import weights_hash
from unclip_jax.interop import read_bundle
from unclip_jax.training import run_facts
from unclip_jax.training.checkpoint import Checkpointer, Progress
from unclip_jax.training.state import TrainState


def write_run(workdir, stage, clip=None):
    """The workdir that training leaves: checkpoints at two steps, facts of two starts."""
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(to_mapping(stage.config)))
    if clip:
        record = {
            "clip": {
                "path": "runs/clip",
                "sha256": clip.weights_sha256,
                "config": to_mapping(clip.config),
            },
            "statistics": None
            if stage.statistics is None
            else {k: v.tolist() for k, v in stage.statistics.items()},
        }
        (workdir / "frozen.json").write_text(json.dumps(record))
    for fingerprint in ("old", "new"):
        data = {"examples": 40, "fingerprint": fingerprint}
        run_facts.write(workdir, run_facts.collect(data=data, stage=stage.config.stage))
    checkpointer = Checkpointer(workdir, keep=2)
    for step, factor in ((3, 0.0), (7, 1.0)):
        ema = jax.tree.map(lambda x, f=factor: np.asarray(x * f, np.float32), stage.params)
        params = jax.tree.map(lambda x: x + np.float32(1), ema)
        state = TrainState(np.int32(step), params, ema, optax.sgd(0.1).init(params))
        checkpointer.save(step, state, Progress({}, 0.0))
    checkpointer.close()
    return workdir


@pytest.fixture(scope="module")
def runs(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    stages = cascade.named()
    return {
        "clip": write_run(folder / "clip", stages["clip"]),
        "prior": write_run(folder / "prior", stages["prior"], stages["clip"]),
        "upsampler": write_run(folder / "upsampler", stages["upsampler"]),
    }


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "bundle"
    # The order of the runs does not matter.
    assert main(["export", "--workdir", *map(str, reversed(runs.values())), "--out", str(out)]) == 0
    return out


def test_the_newest_averaged_weights_are_exported(exported, cascade):
    found = read_bundle(exported).cascade.named()
    assert list(found) == ["clip", "prior", "upsampler"]
    for name, stage in found.items():
        original = cascade.named()[name]
        jax.tree.map(np.testing.assert_array_equal, stage.params, original.params)
        assert stage.step == 7
        assert stage.config == original.config
    np.testing.assert_array_equal(found["prior"].statistics["std"], cascade.prior.statistics["std"])


def test_where_the_weights_come_from_is_recorded(exported):
    provenance = read_bundle(exported).cascade.clip.provenance
    assert provenance["data"] == {"examples": 40, "fingerprint": "new"}
    assert provenance["packages"]["jax"] == jax.__version__
    assert "command" not in provenance


def test_a_bundle_can_be_exported_again(exported, tmp_path, cascade, capsys):
    half = tmp_path / "half"
    command = ["export", "--workdir", str(exported), "--out", str(half), "--dtype", "bfloat16"]
    assert main(command) == 0
    assert "bfloat16" in capsys.readouterr().out
    clip = read_bundle(half).cascade.clip
    assert clip.weights_sha256 == cascade.clip.weights_sha256
    assert weights_hash(clip.params) != cascade.clip.weights_sha256


def test_the_terms_of_the_data_go_with_the_weights(make, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LICENSES.md").write_text("MIT, by someone")
    stage = make("upsampler", data__train=str(tmp_path / "data" / "train-*.tar"))
    workdir = write_run(tmp_path / "run", stage)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["export", "--workdir", str(workdir), "--out", str(first)]) == 0
    assert (first / "DATA_LICENSES.md").read_text() == "MIT, by someone"
    assert main(["export", "--workdir", str(first), "--out", str(second)]) == 0
    assert (second / "DATA_LICENSES.md").read_text() == "MIT, by someone"


def test_the_last_steps_weights_can_be_had(runs, tmp_path, cascade):
    out = tmp_path / "raw"
    command = ["export", "--workdir", str(runs["clip"]), "--out", str(out), "--weights", "raw"]
    assert main(command) == 0
    clip = read_bundle(out).cascade.clip
    jax.tree.map(
        lambda got, ema: np.testing.assert_array_equal(got, ema + np.float32(1)),
        clip.params,
        cascade.clip.params,
    )
    assert clip.provenance["weights"] == "raw"
    assert "those of the last step" in (out / "README.md").read_text()


def test_single_stages_are_put_in_the_place_of_others(runs, exported, make, tmp_path, capsys):
    better = write_run(tmp_path / "better", make("upsampler", seed=9))
    out = tmp_path / "composed"
    command = ["export", "--workdir", str(exported), "--from", f"upsampler={better}"]
    assert main([*command, "--out", str(out)]) == 0
    found, before = (read_bundle(p).cascade for p in (out, exported))
    assert list(found.named()) == ["clip", "prior", "upsampler"]
    assert found.prior.weights_sha256 == before.prior.weights_sha256
    assert found.upsamplers[0].weights_sha256 != before.upsamplers[0].weights_sha256
    capsys.readouterr()
    for text, words in (
        (f"upsmapler={better}", "did you mean 'upsampler'"),
        (f"prior={better}", "holds no prior"),
        ("prior", "expected STAGE=RUN"),
    ):
        assert main(["export", "--workdir", str(exported), "--from", text, "--out", "x"]) == 2
        assert words in capsys.readouterr().err


def test_another_clip_by_name_is_refused(exported, make, tmp_path, capsys):
    other = write_run(tmp_path / "other", make("clip", seed=5))
    command = ["export", "--workdir", str(exported), "--from", f"clip={other}", "--out", "x"]
    assert main(command) == 2
    assert "another CLIP" in capsys.readouterr().err


@pytest.mark.parametrize("dialect", ["huggingface", "openclip"])
def test_a_clip_goes_out_and_comes_back(dialect, exported, tmp_path):
    folder, back = tmp_path / "clip", tmp_path / "back"
    command = ["export", "--workdir", str(exported), "--format", f"clip-{dialect}"]
    assert main([*command, "--out", str(folder)]) == 0
    assert main(["import", "clip", "--weights", str(folder), "--out", str(back)]) == 0
    found, original = (read_bundle(p).cascade.clip for p in (back, exported))
    assert found.weights_sha256 == original.weights_sha256
    assert found.config.model == original.config.model


def refused(capsys, out: pathlib.Path, workdirs, *words):
    assert main(["export", "--workdir", *map(str, workdirs), "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    for word in words:
        assert word in line
    assert not out.exists()


def test_a_prior_of_another_clip_is_refused(runs, make, tmp_path, capsys):
    other = write_run(tmp_path / "other", make("clip", seed=5))
    refused(capsys, tmp_path / "b", [other, runs["prior"]], "another CLIP", "runs", str(other))


def test_a_prior_without_its_clip_is_refused(runs, tmp_path, capsys):
    refused(capsys, tmp_path / "b", [runs["prior"]], "add the clip it was trained against")


def test_folders_that_are_no_runs_are_refused(runs, tmp_path, capsys, make):
    refused(capsys, tmp_path / "b", [tmp_path / "none"], "neither a run's directory nor a bundle")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text((runs["clip"] / "config.json").read_text())
    refused(capsys, tmp_path / "b", [empty], "holds no checkpoints")
    (empty / "config.json").write_text((runs["prior"] / "config.json").read_text())
    refused(capsys, tmp_path / "b", [empty], "frozen.json is missing")
