"""Whether to start a run again after an attempt has ended, and when: a pure function of the past.

A preempted run that saved its state goes on for free. Other ends that may pass (a killed or lost
host, a stall, a crash) are counted against a budget per window of time, and wait twice as long each
time. A mistake of the user's never gets better, and neither does a crash that comes twice without
a step in between.
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


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """The policy: at most `budget` counted restarts in `window_minutes`."""

    budget: int = 10
    window_minutes: float = 60.0
    backoff_seconds: float = 10.0  # before the first counted restart; doubles with each
    backoff_limit_seconds: float = 600.0


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
    if kind is ExitClass.CRASHED and _crashed_there_before(past):
        return Decision(None, f"it crashed twice without a step in between: {last.text}")
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


def _crashed_there_before(past: Sequence[PastAttempt]) -> bool:
    if len(past) < 2:
        return False
    before, last = past[-2:]
    if not before.kind == last.kind == ExitClass.CRASHED.name:
        return False
    return last.step is None or (before.step is not None and last.step <= before.step)
