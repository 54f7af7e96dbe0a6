"""kill -9 in the middle of a run, and on: the batches after are those of a run never stopped."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import unclip_jax
from unclip_jax.data import (
    BatchFields,
    DataPosition,
    Layout,
    host_rows,
    open_dataset,
    train_batches,
)

TRAIN = textwrap.dedent(
    """
    import hashlib, sys, time
    from unclip_jax.data import BatchFields, DataPosition, Layout, host_rows
    from unclip_jax.data import open_dataset, train_batches

    if __name__ == "__main__":
        folder, log, workers, steps, pause, hosts, host = *sys.argv[1:3], *map(int, sys.argv[3:8])
        dataset = open_dataset(folder, BatchFields(image_sizes=(16,), context_length=8))
        lines = open(log).read().splitlines() if pause == 0 else []
        position = DataPosition.from_json(lines[-1].split(" ", 1)[1]) if lines else None
        layout = None if lines else Layout(lanes=8, chunk=4, window=5)
        loader = train_batches(
            dataset, 8, seed=1, position=position, layout=layout, workers=workers,
            max_bad_fraction=1, rows=host_rows(8, hosts, host),
        )
        with open(log, "a") as file:
            for _ in range(steps - len(lines)):
                batch, position = next(loader)
                rows = zip(*(batch[k] for k in sorted(batch)))
                digests = [
                    hashlib.sha256(b"".join(part.tobytes() for part in row)).hexdigest()[:16]
                    for row in rows
                ]
                line = f"{','.join(digests)} {position.to_json()}"
                print(line, file=file, flush=True)
                time.sleep(pause / 1000)
        loader.close()
    """
)


def start(tmp_path, folder, log, *, workers, steps, pause, hosts=1, host=0):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    command = [sys.executable, script, folder, log, *map(str, (workers, steps, pause, hosts, host))]
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


def wait_for_lines(log, count, process):
    deadline = time.time() + 60
    while len(log.read_text().splitlines()) < count:
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.01)


def broken(i, own):
    return [(own[0][0], b"junk"), *own[1:]] if i % 9 == 0 else own


def test_resumed_with_another_number_of_processes(tmp_path, make_shards):
    """Two processes are killed; four go on, each with its rows; one that never stopped agrees."""
    folder = make_shards(tmp_path / "s", (30, 25), broken)
    logs = [tmp_path / f"log{host}" for host in range(2)]
    for log in logs:
        log.touch()
    killed = [
        start(tmp_path, folder, log, workers=0, steps=10_000, pause=20, hosts=2, host=host)
        for host, log in enumerate(logs)
    ]
    for log, process in zip(logs, killed, strict=True):
        wait_for_lines(log, 5, process)
    for process in killed:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = [log.read_text().splitlines()[:4] for log in logs]  # the checkpoint is of step 4
    dataset = open_dataset(folder, BatchFields(image_sizes=(16,), context_length=8))
    position = DataPosition.from_json(kept[0][-1].partition(" ")[2])

    def go_on(hosts, position, steps):
        """Digests of the rows of each global batch, read in so many shares."""
        loaders = [
            train_batches(
                dataset, 8, seed=1, position=position, max_bad_fraction=1,
                layout=None if position else Layout(lanes=8, chunk=4, window=5),
                rows=host_rows(8, hosts, host),
            )
            for host in range(hosts)
        ]  # fmt: skip
        found = []
        for _ in range(steps):
            batches = [next(loader)[0] for loader in loaders]
            columns = [[batch[name] for name in sorted(batch)] for batch in batches]
            rows = [row for parts in columns for row in zip(*parts, strict=True)]
            found.append([_digest(row) for row in rows])
        for loader in loaders:
            loader.close()
        return found

    pairs = zip(*kept, strict=True)
    joined = [[row for line in pair for row in line.partition(" ")[0].split(",")] for pair in pairs]
    joined += go_on(4, position, 6)
    assert joined == go_on(1, None, 10)
    assert all(len(step) == 8 for step in joined)


def _digest(row):
    return hashlib.sha256(b"".join(part.tobytes() for part in row)).hexdigest()[:16]


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_and_resume(tmp_path, make_shards, workers):
    folder = make_shards(tmp_path / "s", (30, 25), broken)
    whole, log = tmp_path / "whole", tmp_path / "log"
    log.touch()
    killed = start(tmp_path, folder, log, workers=workers, steps=10_000, pause=20)
    wait_for_lines(log, 7, killed)
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
