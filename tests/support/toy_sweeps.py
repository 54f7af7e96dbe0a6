"""Sweeps of toy trials, by way of the command line."""

import json
import subprocess
import sys

FAST = ("--option", "limits.grace_seconds=2", "--option", "restarts.budget=0")


def argv(file, workdir, *more, on=("local",)):
    """The command line of a sweep; restarts are off unless `more` turns them on."""
    return [
        *(sys.executable, "-m", "unclip_jax", "sweep", "--config", str(file)),
        *(*FAST, "--on", *on, "--workdir", str(workdir), *more),
    ]


def run(file, workdir, *more, on=("local",), timeout=120):
    """(exit code, output) of a sweep."""
    ran = subprocess.run(
        argv(file, workdir, *more, on=on), capture_output=True, text=True, timeout=timeout
    )
    return ran.returncode, ran.stdout + ran.stderr


def steps(trial):
    """Those that the trial has made, in order."""
    lines = (trial.out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def starts(trial):
    """How often it was started."""
    return len((trial.out / "starts").read_text().splitlines())
