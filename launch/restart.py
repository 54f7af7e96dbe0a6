"""Whether to start a run again after an attempt has ended, and when: a pure function of the past.

A preempted run that saved its state goes on for free. Other ends that may pass (a killed or lost
host, a stall, a crash) are counted against a budget per window of time, and wait twice as long each
time. A mistake of the user's never gets better, and neither does a run whose attempts end alike
without getting further: twice if it crashes, `patience` times if it is killed or stalls. A host
that is lost says nothing about the run, so that only the budget ends these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .exits import ExitClass

FREE = {ExitClass.PREEMPTED}
COUNTED = {
    ExitClass.CRASHED,
    ExitClass.KILLED,
    ExitClass.LOST,
    ExitClass.STALLED,
    ExitClass.VICTIM,
}


_CRASHES = 2  # a program's own failure comes again more surely than what is done to it


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """The policy: at most `budget` counted restarts in `window_minutes`."""

    budget: int = 10
    window_minutes: float = 60.0
    backoff_seconds: float = 10.0  # before the first counted restart; doubles with each
    backoff_limit_seconds: float = 600.0
    patience: int = 3  # attempts in a row that end alike and get no further


@dataclass(frozen=True, kw_only=True)
class PastAttempt:
    """One attempt that is over; `step` is the last one seen in its logs, `ended` in Unix time."""

    attempt: int
    kind: str  # ExitClass.name
    text: str
    step: int | None
    ended: float


@dataclass(frozen=True)
class Decision:
    """Start again after `delay` seconds, or not at all (None), and why."""

    delay: float | None
    why: str


def decide(policy: Restarts, past: Sequence[PastAttempt]) -> Decision:
    """What to do after the last of `past`."""
    last = past[-1]
    kind = ExitClass[last.kind]
    if kind in FREE:
        return Decision(policy.backoff_seconds, "its state was saved")
    if kind not in COUNTED:
        return Decision(None, last.text)
    stuck = _stuck(policy, past)
    if stuck:
        return Decision(None, f"{stuck}: {last.text}")
    horizon = last.ended - 60 * policy.window_minutes
    counted = [p for p in past if ExitClass[p.kind] in COUNTED and p.ended > horizon]
    if len(counted) > policy.budget:
        return Decision(
            None,
            f"{policy.budget} restarts in {policy.window_minutes:g} minutes are used up: "
            f"{last.text}",
        )
    delay = policy.backoff_seconds * 2 ** (len(counted) - 1)
    return Decision(min(delay, policy.backoff_limit_seconds), last.text)


def _stuck(policy: Restarts, past: Sequence[PastAttempt]) -> str:
    """How the last attempts made no progress, "" if they did."""
    kind = past[-1].kind
    count = _CRASHES if kind == ExitClass.CRASHED.name else policy.patience
    same = past[-count:]
    if kind == ExitClass.LOST.name or len(same) < count or any(p.kind != kind for p in same):
        return ""
    first, *later = (-1 if p.step is None else p.step for p in same)
    if max(later, default=-1) > first:
        return ""
    place = "before a first step" if first < 0 else f"without getting past step {first}"
    return f"{count} attempts in a row ended alike {place}"
