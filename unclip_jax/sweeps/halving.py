"""Hyperband (Li et al. 2018, arXiv 1603.06560) as a function of the curves that there are.

A bracket s has rungs at min factor^s, min factor^(s+1), … steps. A trial goes on from a rung while
it is among the best 1 / factor of its bracket's trials that have reached it, at least one of them.
Brackets begin later the larger s is, and get fewer trials: of s_max + 1 brackets, bracket s gets
ceil((s_max + 1) factor^(s_max - s) / (s_max - s + 1)) in each round (algorithm 1, line 3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Curve = Mapping[int, float]


@dataclass(frozen=True)
class Hyperband:
    """At least `min_steps` for every trial, at most `max_steps`; one in `factor` goes on."""

    min_steps: int
    max_steps: int
    factor: int

    @property
    def last_bracket(self) -> int:
        """s_max: brackets are numbered from 0, the strictest."""
        return int(math.log(self.max_steps / self.min_steps) / math.log(self.factor) + 1e-9)

    def shares(self) -> list[int]:
        """How many trials of each round belong to each bracket."""
        count = self.last_bracket + 1
        return [math.ceil(count * self.factor ** (s - 1) / s) for s in range(count, 0, -1)]

    def bracket(self, number: int) -> int:
        """The bracket of the trial with this number."""
        place = number % sum(self.shares())
        for bracket, share in enumerate(self.shares()):
            if place < share:
                return bracket
            place -= share
        raise AssertionError(number)

    def rungs(self, bracket: int) -> list[int]:
        """The steps at which trials of a bracket are compared, below `max_steps`."""
        places = range(bracket, self.last_bracket + 1)
        steps = [self.min_steps * self.factor**k for k in places]
        return [step for step in steps if step < self.max_steps]


def goes_on(mine: Curve, curves: Sequence[Curve], rungs: Sequence[int], factor: int) -> bool:
    """Whether a trial is good enough at the last rung that it has reached.

    Args:
      mine: its curve; smaller is better.
      curves: of all trials of its bracket, with `mine`.
    """
    reached = [rung for rung in rungs if _at(mine, rung) is not None]
    if not reached:
        return True
    values = sorted(v for curve in curves if (v := _at(curve, reached[-1])) is not None)
    value = _at(mine, reached[-1])
    return value is not None and value <= values[max(1, len(values) // factor) - 1]


def _at(curve: Curve, step: int) -> float | None:
    """The value at the first step of the curve that is not before `step`."""
    later = [s for s in curve if s >= step]
    return curve[min(later)] if later else None
