"""A report: numbers between a floor and a ceiling, as a Markdown table and as JSON.

A number alone says little. Beside each one stands what chance (or noise) would reach, the floor,
and what real pictures reach under the same measurement, the ceiling.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True)
class Measurement:
    """One number.

    Args:
      name: of the metric; it names the feature space where there is one ("fd_clip").
      value: the measured number.
      low: lower end of its uncertainty, None where there is none.
      high: upper end.
      floor: what chance or noise reaches; None if it makes no sense.
      ceiling: what real pictures reach; None if it makes no sense.
      better: "higher", "lower" or, say, "near 1".
      count: how many examples it is computed from, on each side.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    floor: float | None
    ceiling: float | None
    better: str
    count: int


@dataclass(frozen=True)
class Report:
    """Measurements of each split, and notes on how to read them."""

    title: str
    splits: dict[str, tuple[Measurement, ...]]
    notes: tuple[str, ...] = ()

    def __getitem__(self, place: tuple[str, str]) -> Measurement:
        """`report[split, name]`."""
        split, name = place
        return {each.name: each for each in self.splits[split]}[name]

    def to_json(self) -> dict[str, Any]:
        """Plain values; a number that is not finite becomes None."""
        splits = {
            split: {each.name: _plain(asdict(each)) for each in rows}
            for split, rows in self.splits.items()
        }
        return {"title": self.title, "splits": splits, "notes": list(self.notes)}

    def to_markdown(self) -> str:
        """A title, a table for each split, and the notes."""
        lines = [f"# {self.title}", ""]
        for split, rows in self.splits.items():
            lines += [f"## {split}", "", *_table(rows), ""]
        lines += [f"* {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Writes `report.md` and `report.json` into a folder, which is made if missing."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def _table(rows: tuple[Measurement, ...]) -> Iterator[str]:
    yield "| metric | better | value | 95 % | floor | ceiling | n |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for row in rows:
        interval = "" if row.low is None else f"{_digits(row.low)} – {_digits(row.high)}"
        yield (
            f"| {row.name} | {row.better} | **{_digits(row.value)}** | {interval} "
            f"| {_digits(row.floor)} | {_digits(row.ceiling)} | {row.count:,} |"
        )


def _digits(number: float | None) -> str:
    """Three significant digits, without an exponent."""
    if number is None:
        return "–"
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{min(decimals, 6)}f}"


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
