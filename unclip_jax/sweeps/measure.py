"""What a trial has reached: its curve and its value, read from the files that its run writes."""

import json
import math
import pathlib
from typing import Any

from unclip_jax.config.sweeps import Objective


def records(out: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first; a half-written last one is left out."""
    path = out / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def curve(objective: Objective, out: pathlib.Path) -> dict[int, float]:
    """{step: value} of the objective; what is not finite is left out."""
    name = objective.name
    return {record["step"]: record[name] for record in records(out) if record.get(name) is not None}


def value(objective: Objective, out: pathlib.Path) -> float | None:
    """The objective's value, or None if there is none."""
    if objective.file == "metrics.jsonl":
        values = list(curve(objective, out).values())
        if not values:
            return None
        return {"last": values[-1], "min": min(values), "max": max(values)}[objective.take]
    found: Any = None
    path = out / objective.file
    if path.exists():
        found = json.loads(path.read_text())
        for key in objective.name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, int | float) and math.isfinite(found):
        return float(found)
    return None
