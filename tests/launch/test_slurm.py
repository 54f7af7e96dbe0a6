"""A real SLURM of four nodes: runs, failures, requeue and resume, arrays, stops."""

import os
import pathlib
import subprocess
import sys

import pytest
import slurm_lab

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(bool(slurm_lab.reason_to_skip()), reason=str(slurm_lab.reason_to_skip())),
]


@pytest.fixture
def slurm(cluster, launcher, monkeypatch):
    """`start(name, …)` launches on the cluster."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))

    def start(name, *toy, processes=2, options=()):
        return launcher.start(name, *toy, on=("slurm",), processes=processes, options=options)

    launcher.on_slurm = start
    return launcher


def finish(process, timeout=120):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def test_four_nodes_run_together(slurm):
    code, output = finish(slurm.on_slurm("a", "--say", "UNCLIP_COORDINATOR", processes=4))
    assert code == 0, output
    for i in range(4):
        assert slurm.steps(i) == [1, 2, 3, 4, 5]
        assert slurm.starts(i)[0][0] == "1"
    assert {slurm.starts(i)[0][1].split(":")[0] for i in range(4)} == {"n1"}
    assert "toy: 5/5 steps" in slurm.command("logs", "a")[1]


@pytest.mark.core
def test_a_crash_goes_back_into_the_queue_and_resumes(cluster, slurm, wait_until):
    process = slurm.on_slurm("a", "--fail", "1:3:1")
    log = lambda: slurm.command("logs", "a")[1]  # noqa: E731
    wait_until(lambda: "back into the queue" in log(), 60)
    cluster.wait(lambda: (cluster.hurry(), len(slurm.starts(1)) == 2)[1])
    code, output = finish(process)
    assert code == 0, output
    assert slurm.steps(1) == [1, 2, 3, 4, 5]
    assert [attempt for attempt, _ in slurm.starts(1)] == ["1", "2"]


def test_a_mistake_is_not_repeated(slurm):
    code, _ = finish(slurm.on_slurm("a", "--fail", "0:1:2"))
    assert code == 2
    assert len(slurm.starts(0)) == 1


def test_the_budget_ends_it(cluster, slurm, wait_until):
    options = ("--option", "restarts.budget=0")
    code, output = finish(slurm.on_slurm("a", "--fail", "0:1:1", "--always", options=options))
    assert code == 1, output
    assert "budget" in output


def test_the_time_limit_saves_and_continues(cluster, slurm, wait_until):
    """SIGTERM comes before the limit; code 75 is free, also with no budget at all."""
    options = (
        *("--option", "slurm.time=0:01", "--option", "restarts.budget=0"),
        *("--option", "limits.grace_seconds=50"),
    )
    process = slurm.on_slurm("a", "--steps", "1000", "--delay", "0.1", options=options)
    wait_until(lambda: "back into the queue" in slurm.command("logs", "a")[1], 100)
    saved = [int((slurm.workdir / f"state-{i}").read_text()) for i in range(2)]
    assert saved == [slurm.steps(i)[-1] for i in range(2)]
    assert slurm.command("stop", "a", "--grace", "0")[0] == 0
    assert finish(process)[0] == 130


def test_stop_saves_the_state_and_leaves_the_queue(cluster, slurm, wait_until):
    process = slurm.on_slurm("a", "--steps", "10000")
    wait_until(lambda: slurm.workdir.exists() and len(slurm.steps(1)) > 3, 60)
    assert slurm.command("stop", "a")[0] == 0
    code, output = finish(process)
    assert code == 130, output
    for i in range(2):
        assert int((slurm.workdir / f"state-{i}").read_text()) == slurm.steps(i)[-1]
    assert cluster("squeue", "--noheader") == ""


def test_a_killed_launcher_finds_its_job_again(cluster, slurm, wait_until):
    process = slurm.on_slurm("a", "--steps", "150")
    wait_until(lambda: slurm.workdir.exists() and len(slurm.steps(1)) > 3, 60)
    process.kill()
    process.wait()
    code, output = slurm.command("attach", "a")
    assert code == 0, output
    assert len(slurm.starts(0)) == 1
    assert "toy: 150/150 steps" in output


def test_a_node_that_dies_makes_slurm_run_it_again(cluster, slurm, wait_until):
    process = slurm.on_slurm("a", "--steps", "200", "--delay", "0.05")
    wait_until(lambda: slurm.workdir.exists() and len(slurm.steps(1)) > 3, 60)
    cluster.kill_node("n2")
    try:
        cluster.wait(lambda: (cluster.hurry(), len(slurm.starts(0)) > 1)[1], 90)
    finally:
        cluster.start_node("n2")
    code, output = finish(process, 150)
    assert code == 0, output
    assert slurm.steps(0)[-1] == slurm.steps(1)[-1] == 200


def test_an_array_runs_once_for_each_index(slurm, tmp_path):
    argv = slurm.argv("a", on=("slurm",), processes=1, options=("--option", "slurm.array=0-3%2"))
    argv = [word.replace(str(slurm.workdir), f"{slurm.workdir}-{{array}}") for word in argv]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=os.environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for i in range(4):
        assert (pathlib.Path(f"{slurm.workdir}-{i}") / "state-0").read_text() == "5"


def test_the_script_is_what_sbatch_accepts(slurm, tmp_path):
    argv = slurm.argv("a", on=("slurm",), processes=2, options=("--dry-run",))
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    (tmp_path / "job.sh").write_text(text.partition("\n")[2])
    subprocess.run(["sbatch", "--test-only", str(tmp_path / "job.sh")], check=True)
    subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)
    assert sys.executable in text
