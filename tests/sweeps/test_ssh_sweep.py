"""A sweep over real SSH hosts: trials on two hosts each, and a driver that is killed."""

import subprocess
import sys
import time

import pytest
import ssh_lab
from toy_sweeps import argv, run, starts, steps

from unclip_jax.sweeps.trials import DONE, OPEN, SweepFolder

pytestmark = [
    pytest.mark.launch,
    pytest.mark.core,
    pytest.mark.skipif(bool(ssh_lab.reason_to_skip()), reason=str(ssh_lab.reason_to_skip())),
]


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "lab").mkdir()
    made = ssh_lab.Lab(tmp_path / "lab", count=4)
    try:
        yield made.up()
    finally:
        made.down()


def ran_on(trial):
    return sorted((trial.out / "hosts").read_text().split())


def test_groups_of_hosts_and_a_driver_that_is_killed(lab, sweep_file, tmp_path):
    gate, folder = tmp_path / "gate", SweepFolder(lab.shared / "s")
    on = lab.place("--code", "none", "--python", sys.executable)
    base = f"base={{'steps': 6, 'gate': {str(gate)!r}}}"
    file = sweep_file(f"trials=grid({{'x': [0.0, 0.3, 1.0]}}), {base}")
    process = subprocess.Popen(
        argv(file, folder.path, "--concurrency", "2", on=on),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(folder.path.glob("trials/*/out/metrics.jsonl"))) < 2:
        assert time.monotonic() < deadline, process.communicate(timeout=5)
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert [trial.status for trial in folder.trials()] == [OPEN] * 2
    gate.touch()
    code, output = run(file, folder.path, "--concurrency", "1", on=on)
    assert code == 0, output
    trials = folder.trials()
    assert [(trial.status, starts(trial)) for trial in trials] == [(DONE, 1)] * 3
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4, 5, 6]] * 3
    assert [ran_on(trial) for trial in trials] == [["h1", "h2"], ["h3", "h4"], lab.names]
