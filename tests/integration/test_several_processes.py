"""`unclip train` started several times trains as one: gloo over loopback, real processes."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
from ports import free_port

from unclip_jax.training.writers import read_metrics


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_two_processes_train_as_one(toy_runs, undisturbed, shards, tmp_path):
    """Parameters and pictures bit for bit, validation exact, each shared file written once."""
    held_out = {"data__validation": str(shards / "val-*.tar"), "train__validate_every": "20 steps"}
    alone = tmp_path / "alone"
    one = toy_runs.start(alone, **held_out)
    codes, outputs = toy_runs.run(tmp_path / "two", processes=2, **held_out)
    assert codes == [0, 0], outputs
    assert one.wait()[0] == [0]
    assert_equal(toy_runs.params(tmp_path / "two"), toy_runs.params(undisturbed))
    theirs, ours = read_metrics(alone), read_metrics(tmp_path / "two")
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for name in ("loss", "validation/loss"):
        a, b = ([r[name] for r in records if name in r] for records in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-6)
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert [p["devices"] for p in facts[0]["processes"]] == ["1 x cpu", "1 x cpu"]
    pictures = [folder / "samples" / "step_0000040.png" for folder in (alone, tmp_path / "two")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert "process 1: " in outputs[0]
    assert "process 1: " not in outputs[1]  # said once


def test_a_missing_process_is_named_in_time(toy_runs, tmp_path):
    codes, outputs = toy_runs.run(
        tmp_path,
        processes=3,
        devices=3,
        only=[0, 1],
        faults__join_seconds="6",
        env={"UNCLIP_HOSTS": "alpha,beta,gamma"},
    )
    assert codes == [69, 69]
    for output in outputs:
        assert "process 2 (gamma) of 3 did not join within 6 s" in output
        assert "Traceback" not in output


def test_a_misconfigured_process_is_named(toy_runs, tmp_path):
    codes, outputs = toy_runs.run(tmp_path, processes=2, env_of={1: {"UNCLIP_NUM_PROCESSES": "3"}})
    assert codes == [2, 2]
    for output in outputs:
        assert "process 1 on" in output
        assert "has processes 3" in output


def test_a_second_start_meets_in_the_same_collectives(shards, tmp_path):
    """CLIP has several that wait for nothing; programs from the cache ran them in any order."""
    settings = {
        "data.train": str(shards / "train-*.tar"),
        "data.validation": "none",
        "train.batch_size": "12",
        "train.duration": "2 steps",
        "model.vision_layers": "1",
        "model.text_layers": "1",
    }
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    train = [sys.executable, "-m", "unclip_jax", "train", "--config", "clip:tiny", *overrides]
    for start in ("first", "second"):
        env = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "XLA_FLAGS": "",
            "UNCLIP_COORDINATOR": f"127.0.0.1:{free_port()}",
            "UNCLIP_NUM_PROCESSES": "2",
        }
        running = [
            subprocess.Popen(
                [*train, "--workdir", str(tmp_path / start)],
                env={**env, "UNCLIP_PROCESS_ID": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=120)[0] for process in running]
        finally:
            for process in running:
                process.kill()
        assert [process.returncode for process in running] == [0, 0], outputs
