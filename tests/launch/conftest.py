"""Launching toy workers, in processes of our own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from slurm_lab import cluster as cluster

TOY = pathlib.Path(__file__).with_name("toy_worker.py")
FAST = (
    *("--option", "restarts.backoff_seconds=0.1"),
    *("--option", "limits.drain_seconds=1"),
    *("--option", "limits.grace_seconds=3"),
)


@pytest.fixture(scope="session")
def alive():
    """Whether a process exists and is no zombie."""

    def check(pid):
        try:
            status = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    return check


@pytest.fixture(scope="session")
def wait_until():
    """Waits for a condition; returns what it found."""

    def wait(condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise TimeoutError(condition)

    return wait


class Launcher:
    """`unclip launch …` with its own home and workdir."""

    def __init__(self, folder):
        self.home, self.workdir = folder / "home", folder / "workdir"
        self.started = []

    def argv(self, name, *toy, on=("local",), options=(), processes=2):
        return [
            *(sys.executable, "-m", "unclip_jax", "launch", "--on", *on),
            *("--home", str(self.home), "--name", name, "--processes", str(processes)),
            *(*FAST, *options, "--", sys.executable, str(TOY)),
            *("--workdir", str(self.workdir), *toy),
        ]

    def start(self, name, *toy, env=None, **place):
        return self._start(self.argv(name, *toy, **place), env)

    def start_command(self, *words):
        """Starts another sub-command."""
        return self._start(self._command(*words))

    def _start(self, argv, env=None):
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.started.append(process)
        return process

    def run(self, name, *toy, timeout=60, **place):
        """(exit code, output)."""
        process = self.start(name, *toy, **place)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def command(self, *words):
        """(exit code, output) of another sub-command."""
        ran = subprocess.run(self._command(*words), capture_output=True, text=True, timeout=60)
        return ran.returncode, ran.stdout + ran.stderr

    def _command(self, *words):
        return [sys.executable, "-m", "unclip_jax", "launch", *words, "--home", str(self.home)]

    def steps(self, process=0):
        path = self.workdir / f"steps-{process}"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def starts(self, process=0):
        """[attempt, coordinator] of each start."""
        text = (self.workdir / f"starts-{process}").read_text()
        return [line.split() for line in text.splitlines()]

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
            process.stdout.close()
        for name in self.home.glob("*/spec.json"):
            self.command("stop", name.parent.name, "--grace", "0")


@pytest.fixture
def launcher(tmp_path):
    made = Launcher(tmp_path)
    yield made
    made.close()
