"""Sweeps on a real SLURM: one array for all trials, requeued, pruned, stopped and found again."""

import json
import re
import signal
import subprocess
import sys
import textwrap

import pytest
import slurm_lab
from toy_sweeps import argv, run, starts, steps

from unclip_jax.sweeps.trials import DONE, OPEN, PRUNED, SweepFolder

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(bool(slurm_lab.reason_to_skip()), reason=str(slurm_lab.reason_to_skip())),
]
ON = ("slurm", "--option", "restarts.budget=3")
GRID = "trials=grid({'x': [0.0, 0.3, 1.0], 'y': [0, 1]})"


@pytest.fixture(autouse=True)
def on_the_cluster(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


def jobs(folder):
    """The jobs of all trials, by their number."""
    names = {trial.number: trial.id for trial in SweepFolder(folder).trials()}
    found = {}
    for path in folder.glob("launch/*/state.json"):
        number = next(n for n, name in names.items() if path.parent.name.endswith(name))
        found[number] = json.loads(path.read_text())["job"]
    return [found[number] for number in sorted(found)]


def start(file, folder, *more):
    words = argv(file, folder, *more, on=ON)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_all_trials_are_one_array(cluster, sweep_file, tmp_path):
    file = sweep_file(f"{GRID}, base={{'steps': 6, 'delay': 0.2}}")
    shown = run(file, tmp_path / "s", "--concurrency", "2", "--dry-run", on=ON)[1]
    assert "#SBATCH --array=0-5%2" in shown
    code, output = run(file, tmp_path / "s", "--concurrency", "2", on=ON)
    assert code == 0, output
    trials = SweepFolder(tmp_path / "s").trials()
    assert [(t.status, starts(t)) for t in trials] == [(DONE, 1)] * 6
    number = jobs(tmp_path / "s")[0].partition("_")[0]
    assert jobs(tmp_path / "s") == [f"{number}_{index}" for index in range(6)]
    script = next((tmp_path / "s" / "launch").glob("**/array.sh"))
    subprocess.run(["sbatch", "--test-only", str(script)], check=True)
    table = (tmp_path / "s" / "results.md").read_text()
    assert re.search(r"^\| 2 +\| 0\.3 +\| 0 ", table, re.MULTILINE)


def test_a_trial_that_fails_is_requeued_alone(cluster, sweep_file, tmp_path):
    file = sweep_file("trials=[{'x': 0.0}, {'flaky': 1}, {'x': 1.0}], base={'steps': 6}")
    code, output = cluster.finish(start(file, tmp_path / "s", "--concurrency", "2"))
    assert code == 0, output
    trials = SweepFolder(tmp_path / "s").trials()
    assert [(t.status, starts(t)) for t in trials] == [(DONE, 1), (DONE, 2), (DONE, 1)]
    assert steps(trials[1]) == [1, 2, 3, 4, 5, 6]


AS_IT_SUBMITS = """
    import asyncio, os, signal, sys
    from unclip_jax.launch import slurm_array
    from unclip_jax.cli import main
    hand_over = slurm_array.hand_over

    async def disturbed(*args):
        if sys.argv[1] == "killed before":
            os._exit(9)
        job = await hand_over(*args)
        if sys.argv[1] == "killed after":
            os._exit(9)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.1)
        return job

    slurm_array.hand_over = disturbed
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("what", "code"), [("killed before", 9), ("killed after", 9), ("stopped", 75)]
)
def test_a_driver_disturbed_as_it_submits_finds_its_trials(
    cluster, sweep_file, tmp_path, what, code
):
    file = sweep_file(f"{GRID}, base={{'steps': 4, 'delay': 0.2}}")
    script = tmp_path / "disturbed.py"
    script.write_text(textwrap.dedent(AS_IT_SUBMITS))
    words = argv(file, tmp_path / "s", "--concurrency", "4", on=ON)[3:]
    assert subprocess.run([sys.executable, str(script), what, *words]).returncode == code
    if what == "stopped":
        assert cluster("squeue", "--noheader") == ""
    code, output = run(file, tmp_path / "s", "--concurrency", "4", on=ON)
    assert code == 0, output
    trials = SweepFolder(tmp_path / "s").trials()
    assert [trial.status for trial in trials] == [DONE] * 6
    assert [steps(trial) for trial in trials] == [[1, 2, 3, 4]] * 6
    if what != "stopped":
        assert [starts(trial) for trial in trials] == [1] * 6


def test_ctrl_c_empties_the_queue_and_the_sweep_goes_on_later(cluster, sweep_file, tmp_path):
    gate = tmp_path / "gate"
    file = sweep_file(f"{GRID}, base={{'steps': 6, 'gate': {str(gate)!r}}}")
    process = start(file, tmp_path / "s", "--concurrency", "2")
    cluster.wait(lambda: len(list((tmp_path / "s").glob("trials/*/out/metrics.jsonl"))) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert cluster("squeue", "--noheader") == ""
    folder = SweepFolder(tmp_path / "s")
    assert [trial.status for trial in folder.trials()] == [OPEN] * 6
    gate.touch()
    code, output = run(file, tmp_path / "s", "--concurrency", "4", on=ON)
    assert code == 0, output
    assert [steps(trial) for trial in folder.trials()] == [[1, 2, 3, 4, 5, 6]] * 6


def test_a_hopeless_trial_leaves_the_array(sweep_file, tmp_path):
    pytest.importorskip("optuna")
    file = sweep_file(
        "trials=[{'x': 0.3}, {'x': 0.31}, {'x': 5.0, 'steps': 2000, 'delay': 0.05}],"
        "base={'steps': 100}, pruning=Pruning(rule='median', after_trials=2, after_steps=1)"
    )
    code, output = run(file, tmp_path / "s", "--concurrency", "3", on=ON)
    assert code == 0, output
    trials = SweepFolder(tmp_path / "s").trials()
    assert [trial.status for trial in trials] == [DONE, DONE, PRUNED]
    assert len(steps(trials[2])) < 2000
