"""Real training on a real SLURM: two nodes, one of which fails; requeued, resumed, bit for bit."""

import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest
import slurm_lab
from clip_training import STEPS, finish, losses, train

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.training.restore import load_ema_params

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(bool(slurm_lab.reason_to_skip()), reason=str(slurm_lab.reason_to_skip())),
]


def trainer_on(cluster, node):
    """The id of the training process on a node."""
    for pid in cluster.tasks(node):
        argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if argv[1:4] == [b"-m", b"unclip_jax", b"train"]:
            return pid
    raise ProcessLookupError(node)


def params(workdir):
    config = load_config(str(workdir / "config.json"))
    abstract = jax.eval_shape(stages.build(config).init, jax.random.key(0))
    return load_ema_params(workdir, abstract)


@pytest.fixture
def on_two_nodes(cluster, shards, tmp_path, monkeypatch):
    """`start(name)` trains on two nodes; returns the launcher and the workdir."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))

    def start(name):
        workdir = tmp_path / name
        place = ("slurm", "--processes", "2", "--option", "limits.grace_seconds=30")
        return train(shards, workdir, tmp_path / f"home-{name}", *place), workdir

    return start


def test_two_nodes_train_through_a_failure(cluster, on_two_nodes, wait_until):
    process, straight = on_two_nodes("straight")
    code, output = finish(process)
    assert code == 0, output
    assert "2 processes, found by SLURM: 2 devices" in output
    process, disturbed = on_two_nodes("disturbed")
    wait_until(lambda: (disturbed / "checkpoints" / "10").exists(), 900)
    os.kill(trainer_on(cluster, "n2"), signal.SIGKILL)
    code, output = cluster.finish(process)
    assert code == 0, output
    assert "unclip: attempt 1 ended with code" in output
    assert len(json.loads((disturbed / "run.json").read_text())) == 2  # attempts
    assert json.loads((disturbed / "done.json").read_text())["step"] == STEPS

    assert losses(disturbed) == losses(straight)
    (found, found_step), (expected, step) = params(disturbed), params(straight)
    assert found_step == step == STEPS
    jax.tree.map(np.testing.assert_array_equal, found, expected)
