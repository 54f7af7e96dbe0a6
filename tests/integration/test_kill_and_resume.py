"""kill -9 in the middle of `unclip train`, then the same command again: the same parameters."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.training.restore import load_ema_params


def command(shards, workdir, steps):
    return [
        *(sys.executable, "-m", "unclip_jax", "train"),
        *("--config", "clip:tiny", "--workdir", str(workdir)),
        "--config.model.vision_layers=1",
        "--config.model.text_layers=1",
        f"--config.data.train={shards / 'train-*.tar'}",
        "--config.data.validation=none",
        f"--config.train.duration={steps} steps",
        "--config.train.batch_size=8",
        "--config.train.checkpoint_every=5 steps",
        "--config.train.log_every=1",
    ]


def start(shards, workdir, steps):
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command(shards, workdir, steps), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output.decode()


def wait_for(path, process):
    """Until the file exists (a checkpoint that was committed), or the process ends."""
    for _ in range(6000):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.02)
    raise TimeoutError(path)


def params(workdir):
    config = load_config(str(workdir / "config.json"))
    abstract = jax.eval_shape(stages.build(config).init, jax.random.key(0))
    return load_ema_params(workdir, abstract)


def test_kill_9_and_sigterm_then_resume(shards, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    code, output = finish(start(shards, straight, 40))
    assert code == 0, output

    process = start(shards, killed, 40)
    wait_for(killed / "checkpoints" / "5", process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert not (killed / "done.json").exists()

    process = start(shards, killed, 40)  # a polite stop on the way: saved, and said so by its code
    wait_for(killed / "checkpoints" / "15", process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code in (0, 75), output  # 0 if it was already past its last step

    code, output = finish(start(shards, killed, 40))
    assert code == 0, output
    (expected, steps), (found, found_steps) = params(straight), params(killed)
    assert steps == found_steps == 40
    jax.tree.map(np.testing.assert_array_equal, found, expected)
