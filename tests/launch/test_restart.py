"""The restart policy and the judging of ends, as tables."""

import dataclasses

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
    ("kind", "steps", "again"),
    [
        ("CRASHED", [5], True),
        ("CRASHED", [5, 5], False),
        ("CRASHED", [5, None], False),
        ("CRASHED", [None, None], False),
        ("CRASHED", [5, 6], True),
        ("CRASHED", [None, 6], True),
        ("KILLED", [5, 5], True),
        ("KILLED", [5, 5, 5], False),
        ("KILLED", [5, None, 3], False),
        ("KILLED", [4, 5, 5], True),
        ("KILLED", [4, 5, 5, 5], False),
        ("STALLED", [None] * 3, False),
        ("VICTIM", [2] * 3, False),
        ("LOST", [5] * 3, True),  # a host that comes and goes is not the run's doing
    ],
)
def test_attempts_that_end_alike_and_get_no_further_are_final(kind, steps, again):
    decision = decide(POLICY, past(*((kind, step) for step in steps)))
    assert (decision.delay is not None) is again


def test_it_says_where_it_is_stuck():
    why = decide(POLICY, past(*[("KILLED", 5)] * 3)).why
    assert why == "3 attempts in a row ended alike without getting past step 5: why"
    why = decide(POLICY, past(*[("CRASHED", None)] * 2)).why
    assert why == "2 attempts in a row ended alike before a first step: why"


def test_ends_of_another_kind_in_between_begin_anew():
    kinds = [("KILLED", 5), ("KILLED", 5), ("PREEMPTED", 5), ("KILLED", 5)]
    assert decide(POLICY, past(*kinds)).delay is not None
    assert decide(POLICY, past(("KILLED", 5), ("CRASHED", 5))).delay is not None


def test_patience_is_a_setting():
    patient = dataclasses.replace(POLICY, patience=4, budget=9)
    assert decide(patient, past(*[("KILLED", 5)] * 3)).delay is not None
    assert decide(patient, past(*[("KILLED", 5)] * 4)).delay is None
