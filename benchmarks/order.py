"""What the order costs for 400 million samples: seconds and bytes, at the start and while running.

    python benchmarks/order.py [--samples 407332084] [--shards 41455]

Chunks of 64 as a run takes them by default and of 256, 256 lanes, windows of 1,024; and the full
shuffle of a set of two million, the most that is shuffled whole. Results go to
benchmarks/results/order.json.
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from unclip_jax.data import Layout
from unclip_jax.data.order import Order
from unclip_jax.data.plan import FULL_SHUFFLE_LIMIT

RESULTS = Path(__file__).parent / "results" / "order.json"
LANES, PER_LANE, STEPS = 256, 8, 40


def measure(counts: np.ndarray, layout: Layout) -> dict[str, float]:
    """Times of one order; bytes are those of its tables and of one host's windows."""
    start = time.process_time()
    order = Order(counts, layout, seed=0)
    made = time.process_time()
    order.samples(0, 0, 1)  # makes the first epoch's tables
    first = time.process_time()
    times = []
    for step in range(STEPS):
        begun = time.process_time()
        for lane in range(layout.lanes):
            order.samples(lane, step * PER_LANE, PER_LANE)
        times.append(time.process_time() - begun)
    begins, firsts = order._epoch_tables(0)
    tables = order._begins.nbytes + order._lengths.nbytes + begins.nbytes + firsts.nbytes
    return {
        "samples": int(counts.sum()),
        "seconds_to_open": made - start,
        "seconds_an_epoch": first - made,
        "lookups_per_second_first_windows": PER_LANE * layout.lanes / times[0],
        "lookups_per_second": PER_LANE * layout.lanes / statistics.median(times[1:]),
        "table_megabytes": tables / 1e6,
        "window_megabytes": layout.lanes * layout.window * 8 / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=407_332_084, help="LAION-400M")
    parser.add_argument("--shards", type=int, default=41_455)
    args = parser.parse_args()
    counts = np.full(args.shards, args.samples // args.shards)
    counts[: args.samples - counts.sum()] += 1
    cases = {
        "chunks of 64": (counts, Layout(LANES, 64, 1024)),
        "chunks of 256": (counts, Layout(LANES, 256, 1024)),
        "full shuffle": (np.full(200, FULL_SHUFFLE_LIMIT // 200), Layout(LANES)),
    }
    results = {}
    for name, case in cases.items():
        results[name] = measure(*case)
        print(name, json.dumps({k: round(v, 3) for k, v in results[name].items()}), flush=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cases": results,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
