"""Sides by turns: several programs for one piece of work, each a process, measured in one run.

A side answers two lines (see sides/serving.py): "ready", once it is warm, with facts about itself;
"run" with the seconds of a block. The sides take turns, so that what slows the machine slows all of
them, and the ratio of neighbouring blocks is what a shared machine can say. Sides start one after
another: while one compiles, no other does.

Results are kept by cell: a run replaces its own cells in the file and leaves the others, each with
its date, machine and packages.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
# One heap for all threads, never trimmed, for blocks of any size: as `unclip` tells its malloc.
KEPT = "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.mmap_max=0"
PACKAGES = ("jax", "jaxlib", "flax", "torch", "diffusers", "transformers")
SILENCE = {
    "TOKENIZERS_PARALLELISM": "false",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def measure(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], blocks: int
) -> dict[str, Any]:
    """{side: facts and times, "first side / other": ratios} of one cell.

    Args:
      commands: {side: arguments of python}; ratios are of the first side to each of the others.
    """
    processes, results = {}, {}
    for side, command in commands.items():
        processes[side] = _start(command, environment)
        results[side] = _ask(processes[side], "ready")
    times: dict[str, list[dict[str, float]]] = {side: [] for side in commands}
    for _ in range(blocks):
        for side, process in processes.items():
            times[side].append(_ask(process, "run"))
    for side, process in processes.items():
        process.communicate()
        results[side] |= _summary(times[side]) if blocks else {}
    ours, *others = commands
    for side in others if blocks else ():
        results[f"{ours} / {side}"] = _ratios(times[ours], times[side])
    return results


@contextlib.contextmanager
def side_environment(threads: int, *, default_malloc: bool, cold: bool) -> Iterator[dict[str, str]]:
    """What all sides are started with; cold: with empty caches of compiled programs."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), **SILENCE)
    if not default_malloc:
        environment["GLIBC_TUNABLES"] = KEPT
    if not cold:
        yield environment
        return
    with tempfile.TemporaryDirectory() as folder:
        yield environment | {name: f"{folder}/{name}" for name in CACHES}


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _ask(process: subprocess.Popen[str], command: str) -> dict[str, Any]:
    """Sends a line to a side and reads its answer, the first line that is JSON."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"a side ended with exit code {process.wait()}")


def _summary(blocks: list[dict[str, float]]) -> dict[str, float]:
    """Milliseconds of one piece of work: least and median, wall and CPU."""
    wall = [1e3 * b["wall"] for b in blocks]
    cpu = [1e3 * b["cpu"] for b in blocks]
    return {
        "wall_ms_least": min(wall),
        "wall_ms_median": statistics.median(wall),
        "cpu_ms_least": min(cpu),
        "cpu_ms_median": statistics.median(cpu),
        "blocks": len(blocks),
    }


def _ratios(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    """Ours over theirs (less is better): of the least times, and the median of paired blocks."""
    found = {}
    for kind in ("wall", "cpu"):
        mine, other = [b[kind] for b in ours], [b[kind] for b in theirs]
        found[f"{kind}_least"] = min(mine) / min(other)
        found[f"{kind}_paired"] = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return found


def report(cell: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints one cell."""
    for side, r in results.items():
        if "wall_ms_least" in r:
            rate = f"  MFU {r['mfu']:.1%}" if r.get("mfu") else ""
            print(
                f"{cell:28} {side:9} {r['wall_ms_least']:8.1f} ms (median "
                f"{r['wall_ms_median']:.1f}), CPU {r['cpu_ms_least']:8.1f} ms, first after "
                f"{r['first_s']:.0f} s{rate}",
                flush=True,
            )
        elif "first_s" in r:
            print(f"{cell:28} {side:9} first after {r['first_s']:.0f} s", flush=True)
        else:
            print(f"{cell:28} {side}: " + "  ".join(f"{k} {v:.2f}" for k, v in r.items()))


def keep(path: pathlib.Path, cell: str, results: Mapping[str, Any], **how: Any) -> None:
    """Writes one cell into a file of results, in the place of what it said before."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[cell] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "load_average": os.getloadavg(),
        **how,
        "sides": dict(results),
    }
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def cpu_name() -> str:
    """The model name of the first core."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
