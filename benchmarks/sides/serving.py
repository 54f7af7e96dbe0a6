"""How a side of a comparison answers `duel.py`, and what both kinds of side are told."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of a side; one thread of a CPU is also one core."""
    parser.add_argument("--device", choices=("cpu", "gpu"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--compile", action="store_true", help="PyTorch's")
    args = parser.parse_args()
    if args.device == "cpu" and args.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return args


def choose_jax_platform(args: argparse.Namespace, devices: int = 1) -> None:
    """Before JAX is imported. Sides share a GPU, so that none may take all of its memory.

    Args:
      devices: as which a CPU is seen.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_NUM_CPU_DEVICES"] = str(devices)
        if args.threads == 1:
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def serve(work: Callable[[], Any], facts: dict[str, Any], began: float) -> None:
    """Warms up, then answers each line of standard input: "ready" with facts, "run" with times.

    Args:
      work: returns when it is done.
      facts: `first_s` is added, seconds from `began` until work was done once.
    """
    work()
    first_s = time.perf_counter() - began
    once = time.perf_counter()
    work()
    repeats = max(1, int(0.5 / (time.perf_counter() - once)))
    ready = {**facts, "first_s": first_s, "repeats_per_block": repeats}
    for line in sys.stdin:
        print(json.dumps(ready if line.strip() == "ready" else _timed(work, repeats)), flush=True)


def _timed(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds of one repeat, of the wall and of all this process's threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    return {
        "wall": (time.perf_counter() - wall) / repeats,
        "cpu": (time.process_time() - cpu) / repeats,
    }
