"""The recipe of docs/fine-tuning.md on a shrunk karlo: import, fine-tune its decoder, export, draw.

Full and with adapters, through the commands that the recipe names.
"""

import json

import numpy as np
import pytest
from karlo_cascade import make_cascade

from unclip_jax.cli import main
from unclip_jax.config import to_mapping
from unclip_jax.core import trees
from unclip_jax.interop import read_bundle
from unclip_jax.interop.diffusers import write_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    """The bundle of karlo's folders, and a file with the decoder's settings."""
    folder = tmp_path_factory.mktemp("karlo")
    cascade = make_cascade()
    write_folder(cascade, folder / "text-to-image")
    write_folder(cascade, folder / "variation", layout="variation")
    command = [
        "import",
        "diffusers",
        str(folder / "text-to-image"),
        "--out",
        str(folder / "bundle"),
    ]
    assert main([*command, "--image-encoder", str(folder / "variation")]) == 0
    for kind in ("decoder", "prior"):
        stage = getattr(read_bundle(folder / "bundle").cascade, kind)
        (folder / f"{kind}.json").write_text(json.dumps(to_mapping(stage.config)))
    return folder


def train(karlo, shards, workdir, *overrides, kind="decoder", steps=2):
    bundle = karlo / "bundle"
    return main(
        [
            *("train", "--config", str(karlo / f"{kind}.json"), "--workdir", str(workdir)),
            f"--config.init.path={bundle}",
            f"--config.clip.path={bundle}",
            f"--config.data.train={shards}/train-*.tar",
            "--config.train.batch_size=8",
            f"--config.train.duration={steps} steps",
            "--config.optim.warmup=1 steps",
            "--config.optim.learning_rate=0.01",
            *overrides,
        ]
    )


def export(karlo, run, out, kind="decoder"):
    command = ["export", "--workdir", str(karlo / "bundle"), "--from", f"{kind}={run}"]
    assert main([*command, "--out", str(out), "--weights", "raw"]) == 0
    return read_bundle(out).cascade


def changed(before, after):
    """Paths of the parameters that differ."""
    old, new = trees.flatten(before), trees.flatten(after)
    assert old.keys() == new.keys()
    return {path for path in old if not np.array_equal(old[path], new[path])}


def test_full_fine_tuning_starts_from_the_imported_weights(karlo, shards, tmp_path):
    assert train(karlo, shards, tmp_path / "full") == 0
    found = export(karlo, tmp_path / "full", tmp_path / "bundle")
    original = read_bundle(karlo / "bundle").cascade
    moved = changed(original.decoder.params, found.decoder.params)
    assert len(moved) > 0.9 * len(trees.flatten(original.decoder.params))
    # Adam moves no weight by more than its rate a step: these are karlo's, not drawn anew.
    for path, value in trees.flatten(found.decoder.params).items():
        difference = np.abs(value - trees.flatten(original.decoder.params)[path])
        assert difference.max() < 0.03, path
    assert found.decoder.clip_sha256 == original.clip.weights_sha256
    run = json.loads((tmp_path / "full" / "run.json").read_text())[-1]
    assert "bundle" in json.dumps(run)


def test_adapters_change_attention_alone_and_are_merged(karlo, shards, tmp_path):
    work = tmp_path / "lora"
    assert train(karlo, shards, work, "--config.lora.rank=2", "--config.lora.alpha=4") == 0
    found = export(karlo, work, tmp_path / "bundle")
    original = read_bundle(karlo / "bundle").cascade
    moved = changed(original.decoder.params, found.decoder.params)
    assert moved
    assert all("attention" in path and path.endswith("/kernel") for path in moved)
    for path in moved:
        delta = (
            trees.flatten(found.decoder.params)[path] - trees.flatten(original.decoder.params)[path]
        )
        assert np.linalg.matrix_rank(delta.astype(np.float64), tol=1e-5) <= 2, path
    assert found.decoder.config.lora.rank == 0
    assert found.decoder.provenance["lora_rank"] == 2
    run = json.loads((work / "run.json").read_text())[-1]
    assert 0 < run["parameters"] < original.decoder.parameter_count / 10

    # It resumes, and refuses another base.
    assert train(karlo, shards, work, "--config.lora.rank=2", "--config.lora.alpha=4", steps=3) == 0
    record = json.loads((work / "base.json").read_text())
    (work / "base.json").write_text(json.dumps({**record, "sha256": "0" * 64}))
    assert train(karlo, shards, work, "--config.lora.rank=2", "--config.lora.alpha=4", steps=4) == 2


def test_a_prior_goes_on_in_the_space_that_it_knows(karlo, shards, tmp_path):
    assert train(karlo, shards, tmp_path / "prior", kind="prior") == 0
    found = export(karlo, tmp_path / "prior", tmp_path / "bundle", kind="prior")
    original = read_bundle(karlo / "bundle").cascade.prior
    for name, value in original.statistics.items():
        np.testing.assert_array_equal(found.prior.statistics[name], value)


def test_adapters_need_a_base(karlo, shards, tmp_path, capsys):
    overrides = ("--config.lora.rank=2", "--config.init.path=none")
    assert train(karlo, shards, tmp_path / "run", *overrides) == 2
    assert "adapters need the whole network of config.init.path" in capsys.readouterr().err
