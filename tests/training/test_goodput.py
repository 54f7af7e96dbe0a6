"""The ledger's sums, on timelines made by hand."""

import pytest

from unclip_jax.training import goodput
from unclip_jax.training.phases import Phases


def line(attempt, time, at, **seconds):
    return {"attempt": attempt, "time": time, "step": at, "seconds": seconds}


def test_an_undisturbed_run():
    lines = [line(0, 10, 0, start=10), line(0, 40, 20, compile=5, step=20, data=5)]
    seconds = goodput.report(lines)
    assert seconds["step"] == 20
    assert seconds["lost"] == seconds["down"] == 0
    assert sum(seconds.values()) == 40


def test_steps_made_again_are_lost_and_pauses_are_down():
    """Killed at step 30, found again at its checkpoint 20, a minute later."""
    lines = [
        line(0, 10, 0, start=10),
        line(0, 30, 20, step=20),
        line(0, 40, 30, step=10),
        line(100, 110, 20, start=10),
        line(100, 130, 40, step=20),
    ]
    seconds = goodput.report(lines)
    assert seconds["lost"] == 10
    assert seconds["step"] == 40
    assert seconds["down"] == 60
    assert sum(seconds.values()) == 130


def test_a_rollback_inside_an_attempt_is_lost_too():
    lines = [
        line(0, 0, 0),
        line(0, 30, 30, step=30),
        line(0, 32, 10, start=2),
        line(0, 62, 40, step=30),
    ]
    assert goodput.report(lines)["lost"] == pytest.approx(20)


def test_lines_that_a_kill_cut_short_are_left_out(tmp_path):
    ledger = goodput.Ledger(tmp_path, Phases())
    ledger.note(3, force=True)
    with (tmp_path / goodput.FILE).open("a") as file:
        file.write('{"attempt": 1, "ti')
    assert [entry["step"] for entry in goodput.read(tmp_path)] == [3]
    assert goodput.read(tmp_path / "elsewhere") == []


def test_phases_nest_and_sum_up():
    phases = Phases()
    with phases("data"):
        assert phases.now.phase == "data"
    phases.enter("step", 7)
    assert phases.now[:2] == ("step", 7)
    taken = phases.take()
    assert set(taken) <= {"start", "data", "step"}
    assert taken["start"] > 0  # this process's age
