"""One training step of our prior and decoder beside diffusers' in PyTorch, eager and compiled.

    python benchmarks/train_step.py                      # 1 and 2 threads of a CPU, float32
    python benchmarks/train_step.py --device gpu         # bfloat16, paper widths, with MFU
    python benchmarks/train_step.py --cells prior --sides jax eager --blocks 2

Needs what tests/oracles/requirements.txt lists (`make oracles` installs it). A step is the forward
pass, mean squared error, backward pass and AdamW, on nets of the same layers, sizes and parameter
counts, the same batch and dtype. Nothing is compared that only one side does: no EMA, no metrics.

Each side of a cell is a process of its own; the sides take turns, a block of steps each, within one
run, so that what slows the machine slows both. Wall and CPU time are given: on a machine that
others use, the CPU time of one thread is the number to trust. Both sides' allocators are told to
use huge pages (as `unclip` tells its own, see docs/performance.md); --small-pages leaves that out.
Results go to benchmarks/results/train_step_<device>.json.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
SIDES = ("jax", "eager", "compiled")
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def ask(process: subprocess.Popen, command: str) -> dict[str, Any]:
    """Sends a line to a side and reads its answer, the first line that is JSON."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"a side ended with exit code {process.wait()}")


def start(cell: str, side: str, args: argparse.Namespace, threads: int) -> subprocess.Popen:
    """A process that holds one side of a cell."""
    script = HERE / "sides" / ("jax_step.py" if side == "jax" else "torch_step.py")
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    if not args.small_pages:
        environment["GLIBC_TUNABLES"] = HUGE_PAGES
    command = [sys.executable, str(script), cell, "--device", args.device]
    command += ["--threads", str(threads), "--batch", str(args.batch)]
    command += ["--compile"] if side == "compiled" else []
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def measure(cell: str, args: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Blocks of steps by turns; one summary per side, and ratios to each of the others."""
    processes = {side: start(cell, side, args, threads) for side in args.sides}
    results: dict[str, Any] = {side: ask(p, "ready") for side, p in processes.items()}
    blocks: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for _ in range(args.blocks):
        for side, process in processes.items():
            blocks[side].append(ask(process, "run"))
    for side, process in processes.items():
        process.communicate()
        results[side] |= summary(blocks[side])
    if "jax" in results:
        for side in args.sides:
            if side != "jax":
                results[f"jax / {side}"] = ratios(blocks["jax"], blocks[side])
    return results


def summary(blocks: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds a step: least and median, wall and CPU."""
    wall = [1e3 * b["wall"] for b in blocks]
    cpu = [1e3 * b["cpu"] for b in blocks]
    return {
        "wall_ms_least": min(wall),
        "wall_ms_median": statistics.median(wall),
        "cpu_ms_least": min(cpu),
        "cpu_ms_median": statistics.median(cpu),
        "blocks": len(blocks),
    }


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Ours over theirs (less is better): of the least times, and the median of paired blocks."""
    found = {}
    for kind in ("wall", "cpu"):
        mine, other = [b[kind] for b in ours], [b[kind] for b in theirs]
        found[f"{kind}_least"] = min(mine) / min(other)
        found[f"{kind}_paired"] = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return found


def report(name: str, results: dict[str, Any]) -> None:
    """Prints one cell."""
    for side, r in results.items():
        if "wall_ms_least" in r:
            rate = f"  MFU {r['mfu']:.1%}" if r.get("mfu") else ""
            print(
                f"{name:24} {side:9} {r['wall_ms_least']:8.1f} ms (median "
                f"{r['wall_ms_median']:.1f}), CPU {r['cpu_ms_least']:8.1f} ms, "
                f"{r['parameters'] / 1e6:.2f} M parameters, ready in {r['ready_s']:.0f} s{rate}",
                flush=True,
            )
        else:
            print(f"{name:24} {side}: " + "  ".join(f"{k} {v:.2f}" for k, v in r.items()))


def add_mfu(results: dict[str, Any]) -> None:
    """Adds each side's rate and MFU: FLOPs of our traced net (training, 3 x forward) for both."""
    ours = results.get("jax")
    if ours is None:
        return
    for side in SIDES:
        if side in results:
            r = results[side]
            rate = ours["train_flops_per_step"] / (r["wall_ms_least"] / 1e3)
            r["tflops_per_second"] = rate / 1e12
            r["mfu"] = None if ours["peak_flops"] is None else rate / ours["peak_flops"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--cells", nargs="+", help="default: prior unet, on a GPU all four stages")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of a CPU")
    parser.add_argument("--batch", type=int, default=0, help="0: the cell's own")
    parser.add_argument("--blocks", type=int, default=8, help="of each side")
    parser.add_argument("--small-pages", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    gpu = args.device == "gpu"
    cells = args.cells or (
        ["prior_1b", "decoder_64", "upsampler_256", "upsampler_1024"] if gpu else ["prior", "unet"]
    )
    results = {}
    for cell in cells:
        for threads in [os.cpu_count() or 1] if gpu else args.threads:
            name = cell if gpu else f"{cell}, {threads} threads"
            results[name] = measure(cell, args, threads)
            add_mfu(results[name])
            report(name, results[name])
    out = args.out or HERE / "results" / f"train_step_{args.device}.json"
    packages = ("jax", "jaxlib", "flax", "torch", "diffusers")
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "packages": {p: importlib.metadata.version(p) for p in packages},
        "huge_pages": not args.small_pages,
        "load_average": os.getloadavg(),
        "cells": results,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")


def cpu_name() -> str:
    """The model name of the first core."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
