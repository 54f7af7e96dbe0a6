"""The sweeps that ship: every command that they would run is one, and the tiny ones are run."""

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from unclip_jax.cli import main, parse
from unclip_jax.config import load_config
from unclip_jax.config.sweeps import load_sweep
from unclip_jax.sweeps.trials import DONE, SweepFolder

GIVEN = {"bundle": "demo/bundle", "data": "demo/data"} | {
    stage: f"demo/runs/{stage}" for stage in ("clip", "prior", "decoder")
}
SHIPPED = [
    *("prior_lr:emoji", "prior_lr:tiny", "prior_lr:search"),
    *("guidance:full", "guidance:quick"),
    *("embedding_scale:emoji", "embedding_scale:tiny", "dropout:emoji", "dropout:tiny"),
]


def given(places, name):
    """The --given options that a sweep needs."""
    needed = [key for key in places if "{" + key + "}" in str(load_sweep(name))]
    return [word for key in needed for word in ("--given", f"{key}={places[key]}")]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_command_of_a_trial_is_one(name, tmp_path, capsys):
    argv = ("sweep", "--config", name, "--on", "local", "--workdir", str(tmp_path / "s"))
    assert main([*argv, *given(GIVEN, name), "--dry-run"]) == 0
    job = json.loads(re.search(r"<<'END'\n(.*?)\nEND\n", capsys.readouterr().out, re.DOTALL)[1])
    chains = itertools.groupby(job["argv"], lambda word: word == "--")
    commands = [list(words) for is_mark, words in chains if not is_mark]
    assert not any("{" in word for words in commands for word in words)
    after = load_sweep(name).after
    if after:
        assert commands.pop(0)[1:] == ["-m", "unclip_jax.launch.chain"]
    assert len(commands) == 1 + len(after)
    for words in commands:
        assert words[:3] == [sys.executable, "-m", "unclip_jax"]
        parse(words[3:])


def test_all_that_ship_are_tested_here():
    folder = pathlib.Path(__file__).parents[2] / "configs" / "sweeps"
    names = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert names == {name.partition(":")[0] for name in SHIPPED}
    with pytest.raises(Exception, match=r"no variant 'tinny'.*did you mean 'tiny'"):
        load_sweep("dropout:tinny")


def unclip(*words):
    ran = subprocess.run(
        [sys.executable, "-m", "unclip_jax", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def demo(shards, tmp_path_factory):
    """A folder as `unclip demo` leaves one: data, and the runs of a few steps."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "data").mkdir()
    shutil.copy(shards / "train-00000.tar", folder / "data")
    shutil.copy(shards / "train-00001.tar", folder / "data" / "val_style-00000.tar")
    for stage in ("clip", "prior", "decoder"):
        settings = {
            "data.train": folder / "data" / "train-*.tar",
            "data.validation": "none",
            "train.duration": "2 steps",
            **({} if stage == "clip" else {"clip.path": folder / "runs" / "clip"}),
        }
        words = (f"--config.{name}={value}" for name, value in settings.items())
        unclip("train", "--config", f"{stage}:tiny", "--workdir", folder / "runs" / stage, *words)
    runs = (folder / "runs" / stage for stage in ("clip", "prior", "decoder"))
    unclip("export", "--workdir", *runs, "--out", folder / "bundle")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trials", "stage"),
    [
        ("embedding_scale:tiny", 2, "prior"),
        ("dropout:tiny", 1, "decoder"),
        ("guidance:quick", 1, ""),
    ],
)
def test_it_runs(demo, tmp_path, name, trials, stage):
    places = {key: place.replace("demo", str(demo)) for key, place in GIVEN.items()}
    folder = tmp_path / "sweep"
    unclip(
        *("sweep", "--config", name, "--on", "local", "--workdir", folder),
        *("--trials", str(trials), *given(places, name)),
    )
    found = SweepFolder(folder).trials()
    assert [trial.status for trial in found] == [DONE] * trials
    best = json.loads((folder / "best.json").read_text())
    assert best.get("stage", "") == stage
    if stage:  # a config that `unclip train` takes
        load_config(str(folder / "best.json"), {})
