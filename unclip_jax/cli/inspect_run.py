"""Show how a run is doing: its progress, what each process does, and where its time went.

Example:
  unclip inspect run runs/clip
"""

import argparse
import json
import pathlib
import time
from typing import Any

from unclip_jax.errors import UserError
from unclip_jax.training import goodput
from unclip_jax.training.checkpoint import directory
from unclip_jax.training.restore import complete_steps
from unclip_jax.training.writers import read_metrics

_MEANING = {
    "start": "starting, restoring",
    "compile": "first step",
    "data": "waiting for data",
    "step": "steps that count",
    "evaluate": "validation and pictures",
    "save": "saving (what could not be hidden)",
    "lost": "steps made again",
    "down": "between two starts",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("workdir", type=pathlib.Path, help="the run's directory")


def run(args: argparse.Namespace) -> int:
    """Prints the report; exit code 0."""
    workdir = args.workdir
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is no run's workdir: it has no config.json")
    print("\n".join([*_progress(workdir), *_processes(workdir), *_goodput(workdir)]))
    return 0


def _progress(workdir: pathlib.Path) -> list[str]:
    config = _json(workdir / "config.json") or {}
    starts = _json(workdir / "run.json") or []
    folder = directory(workdir)
    steps = complete_steps(folder) if folder.is_dir() else []
    records = read_metrics(workdir)
    state = "complete" if (workdir / "done.json").exists() else "not complete"
    lines = [
        f"{workdir}: stage {config.get('stage')}, {state}, {len(starts)} starts",
        f"  checkpoints  {', '.join(map(str, steps)) or 'none'}",
    ]
    if starts:
        lines.append(f"  last start   {starts[-1]['started']}: {starts[-1].get('begun', '')}")
        if figures := starts[-1].get("startup"):
            lines.append(
                f"  first step   after {figures['seconds_to_first_step']:.1f} s, of which "
                f"{figures['compile_seconds']:.1f} s compiling; "
                f"{figures['cached_programs']:.0f} programs from the cache"
            )
    if records:
        last = {name: value for name, value in records[-1].items() if value is not None}
        shown = [f"{n} {last[n]:.4g}" for n in ("loss", "examples_per_second") if n in last]
        lines.append(f"  last record  step {last['step']}  {'  '.join(shown)}")
    skipped = sum(int(r.get("skipped") or 0) for r in records)
    if skipped:
        lines.append(f"  left out     {skipped} recorded updates that were not finite")
    aside = sorted(path.name for path in (workdir / "set_aside").glob("*"))
    if aside:
        lines.append(f"  set aside    damaged checkpoints {', '.join(aside)}")
    return lines


def _processes(workdir: pathlib.Path) -> list[str]:
    lines = []
    for path in sorted((workdir / "heartbeats").glob("process_*.json")):
        beat = _json(path)
        if beat is None:
            continue
        age = time.time() - beat["time"]
        lines.append(
            f"  {path.stem.replace('_', ' ')}: {beat['host']}, step {beat['step']}, "
            f"{beat['phase']}, {age:.0f} s ago"
        )
    return ["processes, when last heard of", *lines] if lines else []


def _goodput(workdir: pathlib.Path) -> list[str]:
    seconds = goodput.report(goodput.read(workdir))
    total = sum(seconds.values())
    if not total:
        return []
    rows = [
        f"  {cause:9} {spent:10.1f} s {100 * spent / total:5.1f} %  {_MEANING[cause]}"
        for cause, spent in seconds.items()
    ]
    return [f"goodput {100 * seconds['step'] / total:.1f} % of {total:.0f} s", *rows]


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
