"""Real training of several processes that find each other, here and over hosts with SSH."""

import json
import os
import signal
import sys

import pytest
import ssh_lab
from clip_training import STEPS, finish, losses, ranks, train

pytestmark = pytest.mark.launch


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
    wait_until(lambda: (workdir / "checkpoints" / "10").exists(), 900)
    os.kill(ranks(tmp_path)[1], signal.SIGKILL)
    code, output = finish(process)
    assert code == 0, output
    assert "process 1 ended with code 137" in output
    assert "attempt 2 of clip" in output
    assert json.loads((workdir / "done.json").read_text())["step"] == STEPS
    same(losses(workdir), straight)


@pytest.mark.core
@pytest.mark.skipif(bool(ssh_lab.reason_to_skip()), reason=str(ssh_lab.reason_to_skip()))
def test_three_hosts_one_of_which_is_cut_off(shards, tmp_path, wait_until, straight):
    lab = ssh_lab.Lab(tmp_path / "lab")
    lab.folder.mkdir()
    workdir = lab.shared / "workdir"
    try:
        lab.up()
        place = lab.place("--code", "none", "--python", sys.executable)
        process = train(shards, workdir, tmp_path / "home", *place)
        wait_until(lambda: (workdir / "checkpoints" / "10").exists(), 900)
        lab.pull_cable("h3")
        state = tmp_path / "home" / "clip" / "state.json"
        wait_until(lambda: json.loads(state.read_text())["attempt"] >= 2, 900)
        lab.plug_cable("h3")
        code, output = finish(process)
    finally:
        lab.down()
    assert code == 0, output
    assert json.loads((workdir / "done.json").read_text())["step"] == STEPS
    same(losses(workdir), straight)
