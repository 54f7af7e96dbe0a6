"""`unclip inspect run` on workdirs made by hand."""

import json
import time

from unclip_jax.cli import main

START = {
    "started": "2026-11-24T12:00:00+00:00",
    "begun": "from scratch, seed 0",
    "startup": {"seconds_to_first_step": 12.3, "compile_seconds": 8.1, "cached_programs": 3.0},
}


def test_what_it_tells(tmp_path, capsys):
    for name, content in (
        ("config.json", {"stage": "clip"}),
        ("run.json", [START]),
        (
            "heartbeats/process_0.json",
            {"step": 8, "phase": "save", "time": time.time(), "host": "a"},
        ),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    (tmp_path / "metrics.jsonl").write_text('{"step": 8, "loss": 0.5, "skipped": 1.0}\n')
    for step in ("5", "10", "15.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    lines = [
        {"attempt": 0, "time": 10, "step": 0, "seconds": {"start": 10}},
        {"attempt": 0, "time": 40, "step": 10, "seconds": {"step": 30}},
    ]
    (tmp_path / "goodput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["inspect", "run", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for part in (
        "stage clip, not complete, 1 starts",
        "checkpoints  10, 5",
        "first step   after 12.3 s, of which 8.1 s compiling; 3 programs from the cache",
        "step 8  loss 0.5",
        "1 recorded updates that were not finite",
        "process 0: a, step 8, save, ",
        "goodput 75.0 % of 40 s",
    ):
        assert part in told


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["inspect", "run", str(tmp_path)]) == 2
    assert "is no run's workdir" in capsys.readouterr().err
