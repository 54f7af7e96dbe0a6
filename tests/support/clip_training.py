"""A launched training of the smallest CLIP that takes seconds, and what is left of it."""

import json
import os
import pathlib
import subprocess
import sys

STEPS = 60


def train(shards, workdir, home, *place):
    """Starts `unclip launch --on PLACE…`; checkpoints every 10 of `STEPS` steps."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "unclip_jax", "launch", "--on", *place),
            *("--name", "clip", "--home", str(home), "--env", "JAX_PLATFORMS=cpu"),
            *("--option", "restarts.backoff_seconds=1", "--option", "limits.lost_seconds=15"),
            *("--option", "limits.drain_seconds=15", "--config", "clip:tiny"),
            *("--workdir", str(workdir), f"--config.data.train={shards / 'train-*.tar'}"),
            *("--config.data.validation=none", "--config.train.batch_size=12"),
            "--config.model.vision_layers=1",
            "--config.model.text_layers=1",
            f"--config.train.duration={STEPS} steps",
            "--config.train.checkpoint_every=10 steps",
            "--config.train.log_every=1",
            "--config.faults.heartbeat_seconds=60",
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """(exit code, output) of the launcher."""
    output, _ = process.communicate(timeout=1500)
    return process.returncode, output


def losses(workdir):
    """{step: loss}, in the order in which they were written."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record.get("loss") for record in map(json.loads, lines)}


def ranks(folder):
    """Ids of the training processes whose keepers are below a folder, by their number."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            env = dict(p.split(b"=", 1) for p in path.read_bytes().split(b"\0") if b"=" in p)
        except OSError:
            continue
        if env.get(b"UNCLIP_PROCESS_FOLDER", b"").startswith(str(folder).encode()):
            found[int(env[b"UNCLIP_PROCESS_ID"])] = int(path.parent.name)
    return found
