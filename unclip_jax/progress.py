"""Progress of long work: a bar with rate and time left, or plain lines where nobody watches.

    with progress("prior", total=3000, unit="steps") as advance:
        ...
        advance(1, loss=0.12)

On a terminal this is a live bar (rich); elsewhere a line is printed at most every ten seconds and
once at the end, so that logs stay readable.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[..., None]
SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Yields `advance(count=1, total=None, **figures)`.

    Figures are numbers shown beside the bar; `total` corrects an estimate.

    Args:
      what: the work, in a word or two.
      total: how many units it has.
      unit: their name, in the plural.
      done: how many were finished before (by an interrupted run); they do not count for the rate.
    """
    if sys.stderr.isatty():
        with _bar(what, total, unit, done) as advance:
            yield advance
    else:
        lines = _Lines(what, total, unit, done)
        yield lines.advance
        lines.show()


@contextlib.contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, figures="")

        def advance(count: int = 1, total: int | None = None, **figures: float) -> None:
            bar.update(task, advance=count, total=total)
            if figures:
                bar.update(task, figures=_format(figures))

        yield advance


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} {self.unit}/s" if speed else f"- {self.unit}/s")


class _Lines:
    def __init__(self, what: str, total: int, unit: str, done: int):
        self.what, self.total, self.unit = what, total, unit
        self.done = self.before = done
        self.figures: dict[str, float] = {}
        self.start = self.shown = time.monotonic()

    def advance(self, count: int = 1, total: int | None = None, **figures: float) -> None:
        self.done += count
        self.total = total or self.total
        self.figures |= figures
        if time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        rate = (self.done - self.before) / max(self.shown - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        eta = f", {left:.0f} s left" if 0 < left < float("inf") else ""
        line = f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s{eta}"
        print(f"{line}  {_format(self.figures)}".rstrip(), file=sys.stderr, flush=True)


def _format(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
