"""Goodput: the share of a run's time that moved it forward, over all its starts.

`goodput.jsonl` gets a line at the start of an attempt, every ten seconds and at every save:
{"attempt", "time", "step", "seconds": {phase: seconds since the line before}}. The report adds up
the phases; steps that a later attempt or a rollback made again are "lost", and the time between
the last line of an attempt and the start of the next is "down".
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from unclip_jax.training.phases import PHASES, Phases

FILE = "goodput.jsonl"
CAUSES = (*PHASES, "lost", "down")
_SECONDS_BETWEEN_LINES = 10.0


class Ledger:
    """Appends to `workdir/goodput.jsonl`; with no workdir (another process's part), to nothing."""

    def __init__(self, workdir: pathlib.Path | None, phases: Phases):
        self._path = None if workdir is None else workdir / FILE
        self._phases = phases
        self._last = 0.0

    def note(self, step: int, force: bool = False) -> None:
        """Writes a line if it is time to, or if forced."""
        if self._path is None or (
            not force and time.monotonic() - self._last < _SECONDS_BETWEEN_LINES
        ):
            return
        self._last = time.monotonic()
        line = {
            "attempt": self._phases.began,
            "time": time.time(),
            "step": step,
            "seconds": self._phases.take(),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's ledger; those that a kill cut short are left out."""
    path = workdir / FILE
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def report(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by cause; "step" holds only the steps that the newest state stands on."""
    seconds = dict.fromkeys(CAUSES, 0.0)
    for number, line in enumerate(lines):
        for phase, spent in line["seconds"].items():
            seconds[phase] += spent
        before = lines[number - 1] if number else None
        if before is not None and before["attempt"] != line["attempt"]:
            seconds["down"] += max(0.0, line["attempt"] - before["time"])
    for number in range(1, len(lines)):
        lost = _lost(lines, number)
        seconds["lost"] += lost
        seconds["step"] -= lost
    return seconds


def _lost(lines: Sequence[Mapping[str, Any]], number: int) -> float:
    """Seconds of the steps between lines number-1 and number that a later line went back before."""
    line, before = lines[number], lines[number - 1]
    first, last = before["step"], line["step"]
    if line["attempt"] != before["attempt"] or last <= first:
        return 0.0
    back_to = min(later["step"] for later in lines[number:])
    repeated = last - max(first, back_to)
    return line["seconds"].get("step", 0.0) * max(0, repeated) / (last - first)
