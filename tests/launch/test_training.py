"""Real training of several processes that find each other, here and over hosts with SSH."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

spec = importlib.util.spec_from_file_location("lab", pathlib.Path(__file__).with_name("lab.py"))
lab_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lab_module)

pytestmark = pytest.mark.launch
STEPS = 60


def train(shards, workdir, home, *place):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "unclip_jax", "launch", "--on", *place),
            *("--name", "clip", "--home", str(home), "--env", "JAX_PLATFORMS=cpu"),
            *("--option", "restarts.backoff_seconds=1", "--option", "limits.lost_seconds=5"),
            *("--option", "limits.drain_seconds=15", "--config", "clip:tiny"),
            *("--workdir", str(workdir), f"--config.data.train={shards / 'train-*.tar'}"),
            *("--config.data.validation=none", "--config.train.batch_size=12"),
            "--config.model.vision_layers=1",
            "--config.model.text_layers=1",
            f"--config.train.duration={STEPS} steps",
            "--config.train.checkpoint_every=10 steps",
            "--config.train.log_every=1",
            "--config.faults.heartbeat_seconds=10",
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record.get("loss") for record in map(json.loads, lines)}


def ranks(name):
    """Ids of the training processes of a run, by their number."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            env = dict(p.split(b"=", 1) for p in path.read_bytes().split(b"\0") if b"=" in p)
        except OSError:
            continue
        if env.get(b"UNCLIP_PROCESS_FOLDER", b"").startswith(str(name).encode()):
            found[int(env[b"UNCLIP_PROCESS_ID"])] = int(path.parent.name)
    return found


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory):
    """The losses of a run on one process that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    code, output = finish(train(shards, folder / "w", folder / "home", "local"))
    assert code == 0, output
    return losses(folder / "w")


def same(found, expected):
    """All steps once, with the losses of the run that nothing happened to."""
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-4)


def test_two_processes_one_of_which_is_killed(shards, tmp_path, wait_until, straight):
    workdir = tmp_path / "workdir"
    process = train(shards, workdir, tmp_path / "home", "local", "--processes", "2")
    wait_until(lambda: (workdir / "checkpoints" / "10").exists(), 200)
    os.kill(ranks(tmp_path)[1], signal.SIGKILL)
    code, output = finish(process)
    assert code == 0, output
    assert "process 1 ended with code 137" in output
    assert "attempt 2 of clip" in output
    assert json.loads((workdir / "done.json").read_text())["step"] == STEPS
    same(losses(workdir), straight)


@pytest.mark.skipif(bool(lab_module.reason_to_skip()), reason=str(lab_module.reason_to_skip()))
def test_three_hosts_one_of_which_is_cut_off(shards, tmp_path, wait_until, straight):
    lab = lab_module.Lab(tmp_path / "lab")
    lab.folder.mkdir()
    workdir = lab.shared / "workdir"
    try:
        lab.up()
        place = lab.place("--code", "none", "--python", sys.executable)
        process = train(shards, workdir, tmp_path / "home", *place)
        wait_until(lambda: (workdir / "checkpoints" / "10").exists(), 200)
        lab.pull_cable("h3")
        state = tmp_path / "home" / "clip" / "state.json"
        wait_until(lambda: json.loads(state.read_text())["attempt"] == 2, 120)
        lab.plug_cable("h3")
        code, output = finish(process)
    finally:
        lab.down()
    assert code == 0, output
    assert json.loads((workdir / "done.json").read_text())["step"] == STEPS
    same(losses(workdir), straight)
