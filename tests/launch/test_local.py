"""Launching on this machine with toy workers: how attempts end, restart, stop and are taken up."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest


def parent_of(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


def test_processes_learn_who_they_are_and_logs_are_merged(launcher):
    code, output = launcher.run("a", "--say", "UNCLIP_NUM_PROCESSES", processes=3)
    assert code == 0
    for process in range(3):
        assert f"[{process} local] UNCLIP_NUM_PROCESSES=3" in output
        assert launcher.steps(process) == [1, 2, 3, 4, 5]
    coordinators = {launcher.starts(process)[0][1] for process in range(3)}
    assert len(coordinators) == 1
    host, port = coordinators.pop().split(":")
    assert host == "127.0.0.1"
    assert 20000 <= int(port) < 30000
    code, output = launcher.command("logs", "a", "--process", "1")
    assert output.splitlines()[-1] == "[1] toy: 5/5 steps"


def test_one_process_alone_gets_no_coordinator(launcher):
    assert launcher.run("a", processes=1)[0] == 0
    assert launcher.starts(0) == [["1", "None"]]


def test_a_crash_is_restarted_with_another_port_and_goes_on(launcher):
    code, output = launcher.run("a", "--fail", "1:3:1")
    assert code == 0
    assert launcher.steps(1) == [1, 2, 3, 4, 5]  # nothing twice: its state was saved
    (one, first), (two, second) = launcher.starts(1)
    assert (one, two) == ("1", "2")
    assert first != second
    assert "process 1 ended with code 1; attempt 2 in 0.1 s" in output


def test_the_same_crash_twice_ends_the_run(launcher):
    code, output = launcher.run("a", "--fail", "0:3:1", "--always", processes=1)
    assert code == 1
    assert "2 attempts in a row ended alike without getting past step 2" in output
    assert len(launcher.starts(0)) == 2


def test_a_run_that_gets_nowhere_ends_long_before_its_budget_and_names_the_log(launcher):
    code, output = launcher.run("a", "--fail", "0:3:kill", "--always", processes=1)
    assert code == 137
    log = launcher.home / "a" / "logs" / "attempt-003.process-000.log"
    assert output.splitlines()[-1] == (
        "launch: a is over (killed): 3 attempts in a row ended alike without getting past step 2: "
        f"process 0 ended with code 137; its log: {log}"
    )
    assert len(launcher.starts(0)) == 3
    assert log.exists()


def test_a_mistake_is_never_restarted(launcher):
    code, output = launcher.run("a", "--fail", "1:1:2")
    assert code == 2
    assert len(launcher.starts(1)) == 1
    assert "process 1 ended with code 2" in output


@pytest.mark.slow
def test_a_killed_process_takes_the_others_along_and_all_restart(launcher):
    code, output = launcher.run("a", "--fail", "0:2:kill", "--steps", "60", "--delay", "0.03")
    assert code == 0, output
    assert "process 0 ended with code 137" in output
    assert len(launcher.starts(0)) == len(launcher.starts(1)) == 2


def test_a_process_that_stands_still_is_found_and_killed(launcher):
    options = ("--option", "limits.stall_seconds=1.5")
    code, output = launcher.run(
        "a", "--fail", "0:2:hang", "--ignore-term", options=options, processes=1
    )
    assert code == 0
    assert "no step for 1.5 s after step 1" in output
    assert len(launcher.starts(0)) == 2


@pytest.mark.slow
def test_a_silent_start_names_the_silent_processes(launcher):
    options = ("--option", "limits.startup_seconds=1", "--option", "restarts.budget=0")
    code, output = launcher.run("a", "--delay", "60", options=options)
    assert code == 76
    assert "silent so far: process 0 on local, 1 on local" in output


def test_ctrl_c_saves_and_leaves_nothing_behind(launcher, wait_until, alive):
    process = launcher.start("a", "--steps", "1000", "--orphan")
    wait_until(lambda: len(launcher.steps(1)) > 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "asked to stop" in output
    for number in (0, 1):
        saved = int((launcher.workdir / f"state-{number}").read_text())
        assert saved == launcher.steps(number)[-1]
        assert not alive(int((launcher.workdir / f"orphan-{number}").read_text()))


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(launcher, wait_until):
    options = ("--option", "limits.grace_seconds=1")
    process = launcher.start("a", "--steps", "1000", "--ignore-term", options=options)
    wait_until(lambda: launcher.steps(1))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, output
    before = launcher.steps(0)
    assert launcher.steps(0) == before


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(launcher, wait_until):
    options = ("--option", "limits.grace_seconds=300")
    process = launcher.start("a", "--steps", "1000", "--ignore-term", options=options)
    wait_until(lambda: launcher.steps(1))
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "asked to stop" in launcher.command("logs", "a")[1])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_stop_status_and_gc(launcher, wait_until):
    process = launcher.start("a", "--steps", "1000")
    wait_until(lambda: launcher.steps(1))
    assert "running, attempt 1" in launcher.command("status")[1]
    code, output = launcher.command("gc", "a")
    assert code == 2
    assert "not over" in output
    assert launcher.command("stop", "a")[0] == 0
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped: it was stopped" in launcher.command("status", "a")[1]
    assert launcher.command("gc")[0] == 0
    assert "no runs" in launcher.command("status")[1]
    assert launcher.steps(0)  # the workdir stays


def test_only_one_launcher_looks_after_a_run(launcher, wait_until):
    launcher.start("a", "--steps", "1000")
    wait_until(lambda: launcher.steps(1))
    code, output = launcher.run("a", "--steps", "1000")
    assert code == 2
    assert "has a launcher already" in output


@pytest.mark.slow
def test_other_settings_under_the_same_name_are_refused_until_it_is_over(launcher, wait_until):
    process = launcher.start("a", "--steps", "1000")
    wait_until(lambda: launcher.steps(1))
    process.kill()
    process.wait()
    code, output = launcher.run("a", "--steps", "7")
    assert code == 2
    assert "other settings" in output
    assert launcher.command("stop", "a", "--grace", "0")[0] == 0
    assert launcher.run("a", "--steps", "7")[0] == 0
    assert launcher.starts(0)[-1][0] == "2"


def test_secrets_reach_processes_and_nothing_else(launcher):
    value = "s3cr3t-of-this-test"
    process = launcher.start(
        "a", "--say", "WANDB_TOKEN", options=("--secret", "WANDB_TOKEN"), env={"WANDB_TOKEN": value}
    )
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "WANDB_TOKEN=***" in output
    for path in launcher.home.rglob("*"):
        if path.is_file():
            assert value.encode() not in path.read_bytes(), path


def test_a_killed_launcher_is_replaced_and_nothing_runs_twice(launcher, wait_until):
    process = launcher.start("a", "--steps", "120")
    wait_until(lambda: len(launcher.steps(1)) > 3)
    process.kill()
    process.wait()
    before = len(launcher.steps(0))
    wait_until(lambda: len(launcher.steps(0)) > before)  # the run goes on by itself
    assert "no launcher" in launcher.command("status")[1]
    code, output = launcher.command("attach", "a")
    assert code == 0
    assert "back at attempt 1" in output
    assert launcher.steps(0) == launcher.steps(1) == list(range(1, 121))
    assert len(launcher.starts(0)) == 1
    log = (launcher.home / "a" / "logs" / "attempt-001.process-000.log").read_text()
    assert log.splitlines() == [f"toy: {step}/120 steps" for step in range(1, 121)]


@pytest.mark.slow
def test_a_launcher_killed_again_and_again_still_gets_the_run_done(launcher):
    """Killed at a later moment each time: every phase is met, nothing is lost or done twice."""
    toy = ("--steps", "40", "--fail", "1:20:1")
    process = launcher.start("a", *toy)
    for kill in range(1, 30):
        try:
            process.wait(timeout=0.25 + 0.04 * kill)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            recorded = (launcher.home / "a" / "spec.json").exists()
            process = (
                launcher.start_command("attach", "a") if recorded else launcher.start("a", *toy)
            )
        else:
            assert process.returncode == 0
            break
    state = json.loads((launcher.home / "a" / "state.json").read_text())
    assert state["result"] == "DONE"
    assert launcher.steps(0) == launcher.steps(1) == list(range(1, 41))
    assert [attempt for attempt, _ in launcher.starts(1)] == ["1", "2"]


def test_processes_end_by_themselves_when_nobody_follows(launcher, wait_until, alive):
    options = ("--option", "limits.lease_seconds=1")
    process = launcher.start("a", "--steps", "100000", options=options)
    wait_until(lambda: launcher.steps(1))
    process.kill()
    process.wait()
    wait_until(lambda: len(list(launcher.home.rglob("exit.json"))) == 2)
    for path in launcher.home.rglob("exit.json"):
        end = json.loads(path.read_text())
        assert end["code"] == 75
        assert "nobody followed it" in end["reason"]


def test_a_process_does_not_outlive_its_keeper(launcher, wait_until, alive):
    process = launcher.start("a", "--steps", "40", "--delay", "0.05", "--orphan", processes=1)
    wait_until(lambda: launcher.steps(0))
    orphan = int((launcher.workdir / "orphan-0").read_text())
    toy = parent_of(orphan)
    os.kill(parent_of(toy), signal.SIGKILL)
    wait_until(lambda: not alive(toy))
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output  # started again, from its state
    assert "its keeper was killed" in output
    assert not alive(orphan)


def test_dry_run_starts_nothing_and_says_the_same_twice(launcher):
    options = ("--dry-run", "--env", "A=b")
    first = launcher.run("a", options=options)
    assert first[0] == 0
    assert first == launcher.run("a", options=options)
    assert not launcher.home.exists()
    assert len(re.findall(r"# local: start process \d", first[1])) == 2
    assert '"A": "b"' in first[1]
    assert sys.executable in first[1]
