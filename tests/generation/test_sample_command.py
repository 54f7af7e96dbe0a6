"""`unclip sample`: files that say what they are, and one clear line for bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unclip_jax.cli import main
from unclip_jax.cli.sample import slug
from unclip_jax.interop import read_bundle, write_bundle

PROMPTS = ["a red heart", "Café, crème"]


@pytest.fixture(scope="module")
def bundle(cascade, tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "bundle"
    write_bundle(cascade, path)
    return path


@pytest.fixture(scope="module")
def drawn(bundle, tmp_path_factory):
    """A folder of samples: two prompts, one of them from a file, two pictures each."""
    out = tmp_path_factory.mktemp("drawn")
    (out / "prompts.txt").write_text(f"\n{PROMPTS[1]}\n\n", encoding="utf-8")
    command = ["sample", "--bundle", str(bundle), "--prompt", PROMPTS[0]]
    command += ["--prompt-file", str(out / "prompts.txt"), "--n", "2", "--seed", "3"]
    command += [
        "--guidance-scale",
        "2.5",
        "--set",
        "prior.guidance_scale=3",
        "--out",
        str(out / "s"),
    ]
    assert main(command) == 0
    return out / "s"


def test_every_picture_is_a_file_named_after_its_prompt_and_seed(drawn):
    assert sorted(p.name for p in drawn.iterdir()) == [
        "000_a-red-heart_seed3_0.png",
        "000_a-red-heart_seed3_1.png",
        "001_cafe-creme_seed3_0.png",
        "001_cafe-creme_seed3_1.png",
        "grid.png",
        "samples.json",
    ]


def test_the_files_hold_what_the_pipeline_draws(drawn, cascade):
    from unclip_jax.generation import Pipeline

    sampling = {"decoder": {"guidance_scale": 2.5}, "prior": {"guidance_scale": 3.0}}
    wanted = Pipeline(cascade)(PROMPTS, images_per_prompt=2, seed=3, sampling=sampling).images
    record = json.loads((drawn / "samples.json").read_text())
    for entry in record["images"]:
        picture = np.asarray(Image.open(drawn / entry["file"]))
        np.testing.assert_array_equal(picture, wanted[entry["prompt_index"], entry["image"]])
        assert entry["prompt"] == PROMPTS[entry["prompt_index"]]


def test_samples_json_says_what_was_asked_of_which_weights(drawn, bundle):
    record = json.loads((drawn / "samples.json").read_text())
    assert record["bundle"]["sha256"] == read_bundle(bundle).sha256
    assert record["seed"] == 3
    assert record["sampling"]["decoder"]["guidance_scale"] == 2.5
    assert record["sampling"]["prior"]["guidance_scale"] == 3.0
    assert record["sampling"]["upsampler"]["steps"] == 2


def test_the_grid_shows_all(drawn):
    with Image.open(drawn / "grid.png") as grid:
        assert min(grid.size) > 2 * 16


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red heart!", "a-red-heart"),
        ("  flag: Åland_Islands ", "flag-aland-islands"),
        ("日本", "prompt"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 90, "x" * 40),
    ],
)
def test_slugs_are_safe_file_names(text, wanted):
    assert slug(text) == wanted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--prompt": None}, "no prompt: give --prompt TEXT"),
        ({"--bundle": "nowhere"}, "nowhere is no bundle"),
        ({"--sampler": "ddin"}, "no sampler 'ddin' (did you mean"),
        ({"--steps": "5000"}, "steps: must be 1 to 1000"),
        ({"--set": "decoder"}, "write STAGE.SETTING=VALUE"),
        ({"--set": "decoder.step=3"}, "did you mean 'steps'?"),
        ({"--set": "upsampler_64.steps=3"}, "no such stage here (did you mean 'upsampler'?)"),
        ({"--seed": "-1"}, "seed: must be 0 to"),
        ({"--prompt-file": "nowhere.txt"}, "--prompt-file nowhere.txt: can't be read"),
        ({"--out": "TAKEN"}, "can't be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(bundle, tmp_path, capsys, changes, words):
    (tmp_path / "taken").write_text("a file")
    options = {"--bundle": str(bundle), "--prompt": "a heart", "--out": str(tmp_path / "out")}
    options |= changes
    if options["--out"] == "TAKEN":
        options["--out"] = str(tmp_path / "taken" / "out")
    arguments = [text for pair in options.items() if pair[1] is not None for text in pair]
    assert main(["sample", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_bundle_is_loaded_in_one_line_and_the_import_is_light():
    code = (
        "import sys, unclip_jax; "
        "assert not {'jax', 'flax', 'numpy'} & sys.modules.keys(), sys.modules.keys(); "
        "assert unclip_jax.Pipeline and unclip_jax.read_bundle; "
        "assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_load_gives_the_pipeline_of_a_bundle(bundle, cascade, pipeline):
    import unclip_jax

    loaded = unclip_jax.load(bundle)
    assert loaded.cascade.named().keys() == cascade.named().keys()
    np.testing.assert_allclose(
        loaded.embed_texts(PROMPTS), pipeline.embed_texts(PROMPTS), rtol=0, atol=1e-6
    )
    with pytest.raises(unclip_jax.UserError, match="is no bundle"):
        unclip_jax.load("nowhere")
