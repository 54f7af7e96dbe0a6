"""The driver: whatever happens to it, no trial is lost, none is repeated."""

import csv
import json
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from toy_sweeps import argv, run, starts, steps

from unclip_jax.cli import main
from unclip_jax.sweeps.trials import DONE, FAILED, PRUNED, SweepFolder


def test_a_grid_is_run_and_compared(sweep_file, tmp_path):
    file = sweep_file("trials=grid({'x': [0.0, 0.3, 1.0], 'y': [0, 1]}), base={'steps': 4}")
    code, output = run(file, tmp_path / "s", "--concurrency", "3")
    assert code == 0, output
    trials = SweepFolder(tmp_path / "s").trials()
    assert [trial.status for trial in trials] == [DONE] * 6
    with open(tmp_path / "s" / "results.csv") as table:
        rows = list(csv.DictReader(table))
    assert (rows[0]["x"], rows[0]["y"], rows[0]["loss"]) == ("0.3", "0", "0.25")
    assert json.loads((tmp_path / "s" / "best.json").read_text())["settings"] == {"x": 0.3, "y": 0}
    for name in ("results.md", "results.html", "curves.png", "slices.png", "importance.png"):
        assert (tmp_path / "s" / name).stat().st_size > 100, name
    table = (tmp_path / "s" / "results.md").read_text()
    assert run(file, tmp_path / "s")[0] == 0  # nothing left to do, and the same tables
    assert [starts(trial) for trial in trials] == [1] * 6
    assert (tmp_path / "s" / "results.md").read_text() == table


def test_more_trials_may_be_added_later(sweep_file, tmp_path):
    run(sweep_file("trials=grid({'x': [0.0, 1.0]})"), tmp_path / "s")
    code, _ = run(sweep_file("trials=grid({'x': [0.0, 0.5, 1.0]})"), tmp_path / "s")
    assert code == 0
    trials = SweepFolder(tmp_path / "s").trials()
    assert [(t.number, t.overrides["x"]) for t in trials] == [(0, 0.0), (1, 1.0), (2, 0.5)]
    assert [starts(trial) for trial in trials] == [1, 1, 1]
    code, output = run(sweep_file("trials=[{'x': 1.0}], base={'steps': 9}"), tmp_path / "s")
    assert code == 2
    assert "holds a sweep with base" in output


def test_a_broken_trial_is_noted_and_the_others_go_on(sweep_file, tmp_path):
    file = sweep_file("trials=[{'x': 0.0}, {'kind': 'broken'}, {'x': 1.0}]")
    code, _ = run(file, tmp_path / "s")
    assert code == 0
    trials = SweepFolder(tmp_path / "s").trials()
    assert [trial.status for trial in trials] == [DONE, FAILED, DONE]
    assert "ended with code 1" in trials[1].text
    assert "broken" in (trials[1].folder / "launch.log").read_text()
    assert run(sweep_file("trials=[{'kind': 'broken'}]"), tmp_path / "t")[0] == 1


# The driver in a process that dies at the N-th moment at which something is made durable, or just
# before it: every write of the sweep and of the launcher, and every start of a process.
KILLER = """
    import asyncio.subprocess, os, pathlib, sys
    moments, dies_at = 0, int(sys.argv[1])

    def around(function):
        def wrapped(*args, **kwargs):
            global moments
            for _ in range(2):
                moments += 1
                if moments == dies_at:
                    os._exit(9)
                if _ == 0:
                    result = function(*args, **kwargs)
            return result
        return wrapped

    os.replace = around(os.replace)
    pathlib.Path.replace = around(pathlib.Path.replace)
    asyncio.create_subprocess_exec = around(asyncio.create_subprocess_exec)
    from unclip_jax.cli import main
    sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_driver_goes_on(sweep_file, tmp_path):
    """Once here; at every point by the two slow tests below."""
    file = sweep_file("trials=grid({'x': [0.0, 0.3]}), base={'steps': 2}")
    killer = tmp_path / "killer.py"
    killer.write_text(textwrap.dedent(KILLER))
    whole = argv(file, tmp_path / "s")[3:]
    assert subprocess.run([sys.executable, str(killer), "12", *whole]).returncode == 9
    assert SweepFolder(tmp_path / "s").trials()[0].status == "open"
    assert run(file, tmp_path / "s")[0] == 0
    trials = SweepFolder(tmp_path / "s").trials()
    assert [(t.status, starts(t)) for t in trials] == [(DONE, 1), (DONE, 1)]


@pytest.mark.slow
def test_the_driver_may_be_killed_again_and_again(sweep_file, tmp_path):
    """Killed at moment 2, then (called again) at moment 3, and so on until it gets through."""
    file = sweep_file("trials=grid({'x': [0.0, 0.3]}), base={'steps': 2}")
    killer = tmp_path / "killer.py"
    killer.write_text(textwrap.dedent(KILLER))
    whole = argv(file, tmp_path / "s")[3:]
    for moment in range(1, 80):
        ran = subprocess.run(
            [sys.executable, str(killer), str(moment), *whole],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if ran.returncode == 0:
            break
        assert ran.returncode == 9, ran.stdout + ran.stderr
    trials = SweepFolder(tmp_path / "s").trials()
    assert moment > 4
    assert [(t.overrides["x"], t.status) for t in trials] == [(0.0, DONE), (0.3, DONE)]
    assert [starts(trial) for trial in trials] == [1, 1]
    for trial in trials:
        assert steps(trial) == [1, 2]


@pytest.mark.slow
def test_each_single_point_of_a_kill_is_survived(sweep_file, tmp_path):
    """A fresh sweep for every moment: killed there once, then run to its end."""
    file = sweep_file("trials=grid({'x': [0.0, 0.3]}), base={'steps': 2}")
    killer = tmp_path / "killer.py"
    killer.write_text(textwrap.dedent(KILLER))
    for moment in range(1, 200):
        folder = tmp_path / f"s{moment}"
        whole = argv(file, folder)[3:]
        ran = subprocess.run([sys.executable, str(killer), str(moment), *whole], timeout=60)
        survived = ran.returncode == 0
        assert survived or run(file, folder)[0] == 0
        trials = SweepFolder(folder).trials()
        assert [(t.status, starts(t)) for t in trials] == [(DONE, 1), (DONE, 1)], moment
        if survived:
            break
    assert moment > 20


def test_ctrl_c_and_two_drivers(sweep_file, tmp_path):
    gate = str(tmp_path / "gate")
    file = sweep_file(f"trials=grid({{'x': [0.0, 0.3]}}), base={{'steps': 6, 'gate': {gate!r}}}")
    process = subprocess.Popen(
        argv(file, tmp_path / "s", "--concurrency", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder = SweepFolder(tmp_path / "s")
    deadline = time.monotonic() + 30
    while len(list(folder.path.glob("trials/*/out/metrics.jsonl"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    code, output = run(file, tmp_path / "s")
    assert code == 2
    assert "another driver runs this sweep" in output
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert [trial.status for trial in folder.trials()] == ["open", "open"]
    (tmp_path / "gate").touch()
    assert run(file, tmp_path / "s", "--concurrency", "2")[0] == 0
    for trial in folder.trials():
        assert trial.status == DONE
        assert steps(trial) == [1, 2, 3, 4, 5, 6]


MEDIAN = (
    "trials=[{'x': 0.3}, {'x': 0.3001}, {'x': 5.0, 'delay': 0.05}], base={'steps': 1000},"
    "pruning=Pruning(rule='median', after_trials=2, after_steps=1)"
)
HYPERBAND = (
    "trials=[{'x': 0.3, 'steps': 30}, {'x': 5.0, 'delay': 0.05}], base={'steps': 1000},"
    "pruning=Pruning(rule='hyperband', max_steps=1000)"
)


def ended(trial):
    """Whether no process of the trial lives."""
    return not any(
        f"{trial.out}".encode() in path.read_bytes()
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )


@pytest.mark.slow
@pytest.mark.parametrize("fields", [MEDIAN, HYPERBAND])
def test_hopeless_trials_are_ended_early(sweep_file, tmp_path, fields):
    code, output = run(sweep_file(fields), tmp_path / "s")
    assert code == 0, output
    *good, bad = SweepFolder(tmp_path / "s").trials()
    assert [trial.status for trial in good] == [DONE] * len(good)
    assert bad.status == PRUNED
    assert (bad.folder / "pruned.json").exists()
    assert len(steps(bad)) < 1000
    assert ended(bad)
    assert "pruned" in (tmp_path / "s" / "results.md").read_text()
    assert run(sweep_file(fields), tmp_path / "s")[0] == 0
    assert starts(bad) == 1


PRUNING_KILLER = """
    import os, sys
    from unclip_jax.launch.record import Record
    from unclip_jax.sweeps.trials import Trial
    from unclip_jax.cli import main

    def dies(owner, name):
        function = getattr(owner, name)
        def wrapped(*args):
            function(*args)
            os._exit(9)
        setattr(owner, name, wrapped)

    dies(*{"decided": (Trial, "prune"), "asked": (Record, "ask_to_stop")}[sys.argv[1]])
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["decided", "asked"])
def test_a_driver_killed_as_it_prunes_does_not_forget(sweep_file, tmp_path, moment):
    killer = tmp_path / "killer.py"
    killer.write_text(textwrap.dedent(PRUNING_KILLER))
    whole = argv(sweep_file(MEDIAN), tmp_path / "s")[3:]
    assert subprocess.run([sys.executable, str(killer), moment, *whole]).returncode == 9
    *_, bad = SweepFolder(tmp_path / "s").trials()
    assert (bad.status, bad.pruned) == ("open", True)
    assert run(sweep_file(MEDIAN), tmp_path / "s")[0] == 0
    *good, bad = SweepFolder(tmp_path / "s").trials()
    assert ([trial.status for trial in good], bad.status) == ([DONE, DONE], PRUNED)
    assert [starts(trial) for trial in (*good, bad)] == [1, 1, 1]
    assert len(steps(bad)) < 1000
    assert ended(bad)


def test_mistakes_are_found_before_the_first_trial(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "from unclip_jax.config.sweeps import *\n"
        "def get_sweep():\n"
        "    trials = grid({'optim.learning_rat': [1]})\n"
        "    return Sweep(config='prior:tiny', trials=trials)\n"
    )
    code, output = run(file, tmp_path / "s")
    assert code == 2
    assert "did you mean 'learning_rate'" in output
    assert not (tmp_path / "s").exists()
    code, output = run("guidance", tmp_path / "s")
    assert code == 2
    assert re.search(r"needs --given (bundle|data)=", output)


def test_a_dry_run_lists_trials_and_writes_nothing(tmp_path):
    code, output = run("prior_lr:tiny", tmp_path / "s", "--dry-run")
    assert code == 0
    assert len(re.findall(r"^# trial \d", output, re.MULTILINE)) == 4
    assert "--config.optim.learning_rate=0.001" in output
    assert not (tmp_path / "s").exists()


TPU = ("project=p", "zone=z", "accelerator=v4-16", "runtime=r")


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (["ssh", "--hosts", "hosts"], "start process 1"),
        (["slurm"], "#SBATCH --array=0-3%1"),
        (["gke", "--option", "gke.image=i"], "kind: JobSet"),
        (["gcp-tpu", *(w for o in TPU for w in ("--option", f"tpu.{o}"))], "queuedResourceId=s-"),
    ],
)
def test_a_dry_run_on_every_backend(place, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("a\nb\n")
    code = ("--code", "none", "--python", "python3")
    words = ("sweep", "--config", "prior_lr:tiny", "--workdir", str(tmp_path / "s"), "--dry-run")
    assert main([*words, "--on", *place, *code]) == 0
    printed = capsys.readouterr().out
    assert shown in printed
    assert f"{tmp_path}/s/trials/" in printed
    assert not (tmp_path / "s").exists()
