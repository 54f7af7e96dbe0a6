"""The restart policy and the judging of ends, as tables."""

import pytest

from unclip_jax.launch.exits import Exit, ExitClass, judge
from unclip_jax.launch.restart import PastAttempt, Restarts, decide

POLICY = Restarts(budget=3, window_minutes=60, backoff_seconds=10, backoff_limit_seconds=35)


def past(*kinds_and_steps, minutes_apart=1.0):
    return [
        PastAttempt(attempt=i, kind=kind, text="why", step=step, ended=1e9 + 60 * minutes_apart * i)
        for i, (kind, step) in enumerate(kinds_and_steps, 1)
    ]


@pytest.mark.parametrize(
    ("ends", "kind", "process"),
    [
        ([(0, 0), (1, 0)], "DONE", None),
        ([(0, 75), (1, 75)], "PREEMPTED", 0),
        ([(1, 137), (0, 134)], "KILLED", 1),
        ([(0, 134), (1, 137)], "KILLED", 1),  # victims are louder and sometimes faster
        ([(0, 134), (1, 2)], "USER_ERROR", 1),
        ([(0, 1), (1, 2)], "USER_ERROR", 1),
        ([(2, 1), (0, 134), (1, 134)], "CRASHED", 2),
        ([(0, 134), (1, 134)], "VICTIM", 0),
        ([(1, None), (0, 134)], "LOST", 1),
        ([(0, 0), (1, 255)], "LOST", 1),
        ([(0, 3), (1, 0)], "CRASHED", 0),
        ([(0, 134), (1, 65)], "DIVERGED", 1),
        ([(0, 69), (1, 137)], "KILLED", 1),
        ([(0, 76), (1, 134)], "STALLED", 0),
    ],
)
def test_the_cause_is_the_first_that_is_no_victim(ends, kind, process):
    verdict = judge([Exit(p, code) for p, code in ends])
    assert (verdict.kind.name, verdict.process) == (kind, process)


def test_what_we_stopped_ourselves_is_not_a_cause():
    verdict = judge([Exit(1, 143, "stopped"), Exit(0, 1)])
    assert (verdict.kind, verdict.process) == (ExitClass.CRASHED, 0)


@pytest.mark.parametrize("kind", ["DONE", "USER_ERROR", "DIVERGED", "STORAGE", "STOPPED"])
def test_some_ends_are_final(kind):
    assert decide(POLICY, past((kind, 5))).delay is None


def test_preemption_is_free_for_ever():
    assert decide(POLICY, past(*[("PREEMPTED", i) for i in range(50)])).delay == 10


def test_backoff_doubles_up_to_its_limit_and_the_budget_ends_it():
    kinds = [("KILLED", i) for i in range(4)]
    assert [decide(POLICY, past(*kinds[:n])).delay for n in (1, 2, 3, 4)] == [10, 20, 35, None]


def test_what_lies_outside_the_window_is_forgiven():
    kinds = [("LOST", i) for i in range(20)]
    assert decide(POLICY, past(*kinds, minutes_apart=30)).delay == 20


def test_free_restarts_do_not_use_the_budget():
    kinds = [("PREEMPTED", i) for i in range(9)] + [("KILLED", 9)]
    assert decide(POLICY, past(*kinds)).delay == 10


@pytest.mark.parametrize(
    ("before", "last", "again"),
    [
        (("CRASHED", 5), ("CRASHED", 5), False),
        (("CRASHED", 5), ("CRASHED", None), False),
        (("CRASHED", None), ("CRASHED", None), False),
        (("CRASHED", 5), ("CRASHED", 6), True),
        (("CRASHED", None), ("CRASHED", 6), True),
        (("KILLED", 5), ("CRASHED", 5), True),
        (("KILLED", 5), ("KILLED", 5), True),
    ],
)
def test_a_crash_without_progress_in_between_is_final(before, last, again):
    assert (decide(POLICY, past(before, last)).delay is not None) is again
