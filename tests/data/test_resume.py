"""kill -9 in the middle of a run, and on: the batches after are those of a run never stopped."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import unclip_jax

TRAIN = textwrap.dedent(
    """
    import hashlib, sys, time
    from unclip_jax.data import BatchFields, DataPosition, Layout, open_dataset, train_batches

    if __name__ == "__main__":
        folder, log, workers, steps, pause = *sys.argv[1:3], *map(int, sys.argv[3:6])
        dataset = open_dataset(folder, BatchFields(image_sizes=(16,), context_length=8))
        lines = open(log).read().splitlines() if pause == 0 else []
        position = DataPosition.from_json(lines[-1].split(" ", 1)[1]) if lines else None
        layout = None if lines else Layout(lanes=8, chunk=4, window=5)
        loader = train_batches(
            dataset, 8, seed=1, position=position, layout=layout, workers=workers,
            max_bad_fraction=1,
        )
        with open(log, "a") as file:
            for _ in range(steps - len(lines)):
                batch, position = next(loader)
                content = b"".join(batch[k].tobytes() for k in sorted(batch))
                line = f"{hashlib.sha256(content).hexdigest()} {position.to_json()}"
                print(line, file=file, flush=True)
                time.sleep(pause / 1000)
        loader.close()
    """
)


def start(tmp_path, folder, log, *, workers, steps, pause):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    command = [sys.executable, script, folder, log, str(workers), str(steps), str(pause)]
    root = str(Path(unclip_jax.__file__).parents[1])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root})


def children(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_and_resume(tmp_path, make_shards, workers):
    broken = lambda i, own: [(own[0][0], b"junk"), *own[1:]] if i % 9 == 0 else own  # noqa: E731
    folder = make_shards(tmp_path / "s", (30, 25), broken)
    whole, log = tmp_path / "whole", tmp_path / "log"
    log.touch()
    killed = start(tmp_path, folder, log, workers=workers, steps=10_000, pause=20)
    deadline = time.time() + 60
    while len(log.read_text().splitlines()) < 7:
        assert killed.poll() is None
        assert time.time() < deadline
        time.sleep(0.01)
    helpers = children(killed.pid)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = log.read_text().splitlines()
    log.write_text("\n".join(kept[:6]) + "\n")  # the checkpoint is older than the last batch seen
    assert start(tmp_path, folder, log, workers=0, steps=14, pause=0).wait(60) == 0
    whole.touch()
    assert start(tmp_path, folder, whole, workers=0, steps=14, pause=1).wait(60) == 0
    assert log.read_text().splitlines() == whole.read_text().splitlines()
    assert len(set(log.read_text().splitlines())) == 14

    deadline = time.time() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.time() < deadline, "worker processes outlive the run that was killed"
        time.sleep(0.1)
    assert bool(helpers) == (workers > 0)
