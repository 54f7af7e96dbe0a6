"""Whatever ends a run, the same command started again ends with the same parameters."""

import itertools
import json
import os
import signal

import jax
import numpy as np
import pytest

from unclip_jax.training.goodput import read, report
from unclip_jax.training.restore import complete_steps

KILLED = -signal.SIGKILL


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def steps_of(workdir):
    folder = workdir / "checkpoints"
    return complete_steps(folder) if folder.is_dir() else []


def past(workdir, step):
    return lambda: any(found >= step for found in steps_of(workdir))


def test_kill_9_at_every_phase(toy_runs, undisturbed, shards, tmp_path):
    """One run, killed in turn at start, compile, data, step, evaluation and during a save."""
    settings = {"data__validation": str(shards / "val-*.tar"), "train__validate_every": "10 steps"}
    for fault in ("compile:1:0", "step:9:0.01", "evaluate:8:0", "save:3:0.002", "save:2:0.02"):
        codes, outputs = toy_runs.run(tmp_path, env={"TOY_KILL": fault}, **settings)
        assert codes == [KILLED], outputs
    codes, outputs = toy_runs.run(tmp_path, **settings)
    assert codes == [0], outputs
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))
    assert_equal(toy_runs.params(tmp_path), toy_runs.params(undisturbed))
    where = report(read(tmp_path))
    assert where["lost"] > 0
    assert where["down"] > 0


def test_a_killed_process_of_two_ends_both_and_they_go_on(toy_runs, undisturbed, tmp_path):
    codes, outputs = toy_runs.run(tmp_path, processes=2, env_of={1: {"TOY_KILL": "step:20:0.01"}})
    assert codes[1] == KILLED
    assert codes[0] in (69, -signal.SIGABRT, 134), outputs[0]
    codes, outputs = toy_runs.run(tmp_path, processes=2)
    assert codes == [0, 0], outputs
    assert_equal(toy_runs.params(tmp_path), toy_runs.params(undisturbed))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    toy_runs, undisturbed, tmp_path, number
):
    """The signal goes to process 1 of two that share the parameters; one process then finishes."""
    run = toy_runs.start(tmp_path, processes=2, env={"TOY_SLOW": "0.1"}, mesh__data=1, mesh__fsdp=2)
    toy_runs.wait_until(past(tmp_path, 5))
    run.started[1].send_signal(number)
    codes, outputs = run.wait()
    assert codes == [75, 75], outputs
    assert steps_of(tmp_path)[0] < 40
    heartbeats = [json.loads(p.read_text()) for p in (tmp_path / "heartbeats").glob("*.json")]
    assert len(heartbeats) == 2
    codes, outputs = toy_runs.run(tmp_path, processes=1, devices=4, mesh__data=1, mesh__fsdp=4)
    assert codes == [0], outputs
    expected, _ = toy_runs.params(undisturbed)
    found, _ = toy_runs.params(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected
    )


def test_a_second_signal_ends_at_once(toy_runs, tmp_path):
    """Even when the main thread is not at a point where Python would handle signals."""
    run = toy_runs.start(tmp_path, env={"TOY_STALL": "7"})
    toy_runs.wait_until(past(tmp_path, 5))
    run.started[0].terminate()
    toy_runs.wait_until(
        lambda: False if run.started[0].poll() is not None else _says(run, b"saving")
    )
    run.started[0].terminate()
    codes, _ = run.wait(timeout=20)
    assert codes == [143]


def _says(run, words):
    return words in os.read(run.started[0].stdout.fileno(), 65536)


def test_a_signal_before_the_first_step_ends_at_once(toy_runs, tmp_path):
    run = toy_runs.start(tmp_path, env={"TOY_STALL": "0"})
    toy_runs.wait_until(lambda: (tmp_path / "goodput.jsonl").exists())
    run.started[0].terminate()
    codes, outputs = run.wait(timeout=20)
    assert codes == [75]
    assert "nothing to save" in outputs[0]


def test_a_live_process_that_stops_is_noticed(toy_runs, undisturbed, tmp_path):
    """Both ranks end: the one that sleeps, and the one that waits for it in a collective."""
    codes, outputs = toy_runs.run(
        tmp_path,
        processes=2,
        env_of={1: {"TOY_STALL": "12"}},
        faults__stall_minutes="0.1",
    )
    assert 76 in codes, outputs
    assert set(codes) <= {76, 69, -signal.SIGABRT}, outputs
    stacks = [path.read_text() for path in sorted((tmp_path / "stacks").glob("*.txt"))]
    assert any("time.sleep" in text or "toy.py" in text for text in stacks)
    codes, outputs = toy_runs.run(tmp_path, processes=2)
    assert codes == [0, 0], outputs
    assert_equal(toy_runs.params(tmp_path), toy_runs.params(undisturbed))


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_by_all_of_several_processes(toy_runs, undisturbed, tmp_path):
    """One process alone reads the damaged part; both set the checkpoint aside."""
    settings = {"processes": 2, "mesh__data": 1, "mesh__fsdp": 2}
    codes, _ = toy_runs.run(tmp_path, **settings, train__duration="20 steps")
    assert codes == [0, 0]
    for path in (tmp_path / "checkpoints" / "20" / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    codes, outputs = toy_runs.run(tmp_path, **settings)
    assert codes == [0, 0], outputs
    assert "checkpoint 20" in outputs[0]
    assert (tmp_path / "set_aside" / "20").is_dir()
    expected, found = toy_runs.params(undisturbed)[0], toy_runs.params(tmp_path)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected
    )


@pytest.mark.slow
def test_a_save_by_minutes_is_the_same_step_everywhere(toy_runs, tmp_path):
    run = toy_runs.start(
        tmp_path,
        processes=2,
        env={"TOY_SLOW": "0.05"},
        train__checkpoint_every="1000 steps",
        train__checkpoint_minutes=0.01,
        train__keep_checkpoints=100,
    )
    codes, outputs = run.wait()
    assert codes == [0, 0], outputs
    steps = steps_of(tmp_path)
    assert len(steps) >= 3
    assert all(later - earlier > 1 for later, earlier in itertools.pairwise(steps[1:]))
