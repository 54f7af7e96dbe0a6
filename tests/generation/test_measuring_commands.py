"""`unclip likelihood` and `unclip moments` on a bundle of random weights."""

import json

import numpy as np
import pytest

from unclip_jax.cli import main
from unclip_jax.cli.likelihood import summarise
from unclip_jax.generation import Pipeline, compose
from unclip_jax.interop import read_bundle, write_bundle


@pytest.fixture
def bundle(make, clip, tmp_path):
    prior = make("prior", clip, diffusion__num_steps="20")
    write_bundle(
        compose([clip, prior, make("upsampler", diffusion__num_steps="4")]), tmp_path / "b"
    )
    return tmp_path / "b"


def test_likelihood_does_not_depend_on_the_batch_size(bundle, shards, capsys):
    found = []
    for size in ("8", "16"):
        out = bundle.parent / f"{size}.json"
        command = ["likelihood", "--bundle", str(bundle), "--stage", "upsampler", "--shards"]
        command += [str(shards / "val-*.tar"), "--batch-size", size, "--out", str(out)]
        assert main(command) == 0
        found.append(json.loads(out.read_text()))
    assert found[0]["examples"] == 10  # of 16 rows: padding counts for nothing
    np.testing.assert_allclose(found[0]["bits_per_dim"], found[1]["bits_per_dim"], rtol=1e-5)
    total = sum(found[0]["quartiles"]) + found[0]["prior"]
    np.testing.assert_allclose(total, found[0]["bits_per_dim"], rtol=1e-5)
    assert "bits per dimension" in capsys.readouterr().out


def test_quartiles_add_up_and_one_example_has_no_error():
    found = summarise(np.array([3.0]), np.array([0.5]), np.array([[1.0], [0.25], [0.25], [1.0]]))
    assert found["quartiles"] == [1.0, 0.25, 0.25, 1.0]
    assert np.isnan(found["standard_error"])


def test_moments_let_a_bundle_sample_with_analytic_dpm(bundle, shards, one_device):
    weights = {p.name: p.read_bytes() for p in bundle.glob("*.safetensors")}
    command = ["moments", "--bundle", str(bundle), "--stage", "prior", "--steps", "4"]
    assert main([*command, "--shards", str(shards / "val-*.tar"), "--batch-size", "8"]) == 0
    assert {p.name: p.read_bytes() for p in bundle.glob("*.safetensors")} == weights
    assert "analytic_dpm, 4 steps" in (bundle / "README.md").read_text()
    cascade = read_bundle(bundle).cascade
    sampling = cascade.prior.config.sampling
    assert (sampling.sampler, sampling.steps, len(sampling.moments)) == ("analytic_dpm", 4, 4)
    assert all(m > 0 for m in sampling.moments)
    pipeline = Pipeline(cascade, one_device)
    drawn = pipeline.draw_embeddings(["a red square"], pipeline.keys(1, 1, 0))
    assert np.all(np.isfinite(drawn))


def test_mistakes_are_one_line(bundle, shards, capsys):
    where = ["--bundle", str(bundle), "--shards", str(shards / "val-*.tar")]
    assert main(["moments", *where, "--stage", "priors"]) == 2
    assert "no stage 'priors' (did you mean 'prior'?)" in capsys.readouterr().err
    assert main(["likelihood", *where, "--stage", "clip"]) == 2
    assert "stage clip draws nothing" in capsys.readouterr().err
