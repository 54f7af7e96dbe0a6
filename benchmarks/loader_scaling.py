"""The loader beyond decoding: index and raw reads, worker processes, memory, embeddings alone.

    python benchmarks/loader_scaling.py [--samples 4000] [--seconds 8]

The shard is that of benchmarks/loader.py. Rates of reading are in CPU seconds, beside the limit
that the page cache sets (the shard read in one go); worker processes are measured by the clock,
with one and with two of them, each with one thread, and so need two idle cores. Results go to
benchmarks/results/loader_scaling.json.
"""

import argparse
import datetime
import json
import os
import platform
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from loader import write_shard

from unclip_jax.data import (
    BatchFields,
    Layout,
    Provenance,
    TrainBatches,
    open_dataset,
    train_batches,
    write_embeddings,
)
from unclip_jax.data.index import build_index

RESULTS = Path(__file__).parent / "results" / "loader_scaling.json"
BATCH, RUNS, WINDOWS = 256, 3, 8


def cpu_rate(work: Callable[[], object], count: int) -> float:
    """The best of a few runs: CPU seconds are only ever lost to the neighbours."""
    best = 0.0
    for _ in range(RUNS):
        start = time.process_time()
        work()
        best = max(best, count / (time.process_time() - start))
    return best


def reading(shard: Path, plain: Path, samples: int) -> dict[str, float]:
    """Samples a CPU second of what happens before decoding."""
    dataset = open_dataset(str(plain), BatchFields(image_sizes=(64,)))
    shuffled = np.random.default_rng(0).permutation(samples).tolist()

    def at_random() -> None:
        for sample in shuffled:
            dataset.read(sample)

    def sequential() -> None:
        with open(plain, "rb", buffering=0) as file:
            while file.read(8 << 20):
                pass

    return {
        "page cache, in one go": cpu_rate(sequential, samples),
        "index scan, plain headers": cpu_rate(lambda: build_index(plain), samples),
        "index scan, PAX headers": cpu_rate(lambda: build_index(shard), samples),
        "random reads, members parsed": cpu_rate(at_random, samples),
    }


def without_pax(shard: Path, plain: Path) -> None:
    with tarfile.open(shard) as old, tarfile.open(plain, "w", format=tarfile.USTAR_FORMAT) as new:
        for member in old:
            info = tarfile.TarInfo(member.name)
            info.size = member.size
            new.addfile(info, old.extractfile(member))


def clock_rate(loader: TrainBatches, seconds: float, batch_size: int) -> float:
    for _ in range(3):
        next(loader)
    start, rows = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        next(loader)
        rows += batch_size
    return rows / (time.monotonic() - start)


def tree() -> list[psutil.Process]:
    """This process and its workers."""
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def resident_megabytes() -> float:
    """Pages that processes share count once for each."""
    return sum(p.memory_info().rss for p in tree()) / 1e6


def cpu_seconds() -> float:
    return sum(sum(p.cpu_times()[:2]) for p in tree())


def workers(shard: Path, seconds: float) -> dict:
    """Images a second with 1 and 2 worker processes, by the clock and by CPU seconds of all of
    them: the best of several windows, since neighbours can only take away. And memory, which must
    not grow from epoch to epoch."""
    dataset = open_dataset(str(shard), BatchFields(image_sizes=(64,), context_length=77))
    found: dict[str, dict[str, float]] = {}
    for count in (1, 2):
        loader = train_batches(
            dataset, BATCH, seed=0, layout=Layout(32), workers=count, threads=count
        )
        rates, costs, memory = [], [], []
        for _ in range(WINDOWS):
            cpu, start = cpu_seconds(), time.monotonic()
            rates.append(clock_rate(loader, seconds / WINDOWS, BATCH))
            images = rates[-1] * (time.monotonic() - start)
            costs.append(images / (cpu_seconds() - cpu))
            memory.append(resident_megabytes())
        loader.close()
        found[str(count)] = {
            "images_per_second": max(rates),
            "images_per_cpu_second": max(costs),
            "megabytes_after_first_window": memory[0],
            "megabytes_at_the_end": memory[-1],
        }
    one, two = found["1"], found["2"]
    return found | {"scaling": two["images_per_second"] / one["images_per_second"]}


def embeddings_alone(shard: Path, samples: int, seconds: float) -> dict[str, float]:
    """Rows a second by the clock for a prior: 768 half-precision numbers and 77 tokens each."""
    rows = np.random.default_rng(0).normal(size=(samples, 768)).astype(np.float16)
    write_embeddings(shard, "image", rows, Provenance("random", "none", normalised=False))
    dataset = open_dataset(str(shard), BatchFields(context_length=77, embeddings=("image",)))
    loader = train_batches(dataset, 1024, seed=0, layout=Layout(64))
    for _ in range(2 + samples // 1024):  # the first epoch fills the token table
        next(loader)
    rate = clock_rate(loader, seconds, 1024)
    loader.close()
    return {"rows_per_second": rate, "megabytes_per_second": rate * (768 * 4 + 77 * 4) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=16, help="clock seconds for each case")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard, plain = folder / "00000.tar", folder / "plain.tar"
        write_shard(shard, args.samples)
        without_pax(shard, plain)
        report = {
            "date": datetime.date.today().isoformat(),
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "samples_per_cpu_second": reading(shard, plain, args.samples),
            "workers": workers(shard, args.seconds),
            "embeddings_alone": embeddings_alone(shard, args.samples, args.seconds / 4),
        }
    print(json.dumps(report, indent=1))
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
