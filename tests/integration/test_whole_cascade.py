"""Two upsamplers, 8 -> 16 -> 32 px: a cascade trained, exported, loaded elsewhere, drawn from."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unclip_jax.cli import main

pytestmark = pytest.mark.slow

STAGES = {
    "clip": ("clip", {}),
    "prior": ("prior", {}),
    "decoder": ("decoder", {"model.inpainting": "true"}),
    "upsampler": ("upsampler", {}),
    "upsampler_32": ("upsampler", {"model.low_size": "16", "model.image_size": "32"}),
}


@pytest.fixture(scope="module")
def bundle(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    for name, (kind, changes) in STAGES.items():
        settings = {
            "data.train": str(shards / "train-*.tar"),
            "data.validation": str(shards / "val-*.tar"),
            "train.duration": "6 steps",
            "train.batch_size": "8",
        } | changes
        if kind in ("prior", "decoder"):
            settings["clip.path"] = str(folder / "clip")
        overrides = [f"--config.{key}={value}" for key, value in settings.items()]
        workdir = ["--workdir", str(folder / name)]
        assert main(["train", "--config", f"{kind}:tiny", *workdir, *overrides]) == 0
    runs = [str(folder / name) for name in STAGES]
    assert main(["export", "--workdir", *runs, "--out", str(folder / "bundle")]) == 0
    moved = tmp_path_factory.mktemp("elsewhere") / "bundle"
    (folder / "bundle").rename(moved)
    return moved


def unclip(*arguments, cwd):
    """The command in a process of its own, without this one's settings and folders."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "JAX_COMPILATION_CACHE_DIR")
        if name in os.environ
    }
    command = [sys.executable, "-m", "unclip_jax", *arguments]
    subprocess.run(command, cwd=cwd, env=kept | {"HOME": str(cwd)}, check=True)


def test_it_draws_and_edits_in_another_process_and_folder(bundle, tmp_path):
    settings = [f"--set={stage}.steps=3" for stage in ("prior", "decoder", "upsampler")]
    shared = ["--bundle", str(bundle), "--seed", "1", *settings, "--set=upsampler_32.steps=3"]
    unclip(
        "sample", *shared, "--prompt", "a red square", "--n", "2", "--out", "drawn", cwd=tmp_path
    )
    record = json.loads((tmp_path / "drawn" / "samples.json").read_text())
    assert list(record["sampling"]) == ["prior", "decoder", "upsampler", "upsampler_32"]
    files = [tmp_path / "drawn" / entry["file"] for entry in record["images"]]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert [p.shape for p in pictures] == [(32, 32, 3)] * 2
    assert (pictures[0] != pictures[1]).any()

    wide = ["--image", str(files[0]), "--left", "16", "--n", "1", "--out", "wide"]
    unclip("edit", "outpaint", *shared, *wide, cwd=tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "wide" / "00_00.png"))
    assert drawn.shape == (32, 48, 3)
    np.testing.assert_array_equal(drawn[:, 16:], pictures[0])
