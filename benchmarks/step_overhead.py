"""What Python costs per training step.

    python benchmarks/step_overhead.py [--leaves 1700] [--steps 300]

dispatch_ms   a call of a compiled step that computes nothing on a state of `--leaves` arrays (all
              donated, as in training), until its results are ready
loop_ms       a step of a whole run on such a state (parameters, moving average and AdamW's two
              moments of one number each): loader, dispatch, metrics read one step late, flags,
              ledger, progress, and XLA's own work on thousands of tiny arrays

Medians over the steps, wall and CPU of the Python thread. Results go to
benchmarks/results/step_overhead.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from duel import cpu_name

from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.data.shapes import write_shapes
from unclip_jax.stages.stage import Stage
from unclip_jax.training.run import train
from unclip_jax.training.writers import read_metrics

RESULTS = pathlib.Path(__file__).parent / "results" / "step_overhead.json"
ARRAYS_PER_PARAMETER = 4  # itself, its average and two moments


def dispatch(leaves: int, steps: int) -> dict[str, float]:
    """Milliseconds of a call: wall, and CPU of this thread."""
    state = {f"layer_{i}": {"kernel": jnp.zeros(())} for i in range(leaves)}
    step = jax.jit(lambda state: state, donate_argnums=0)
    state = jax.block_until_ready(step(state))
    wall, cpu = [], []
    for _ in range(steps):
        began, spent = time.perf_counter(), time.thread_time()
        state = jax.block_until_ready(step(state))
        wall.append(1e3 * (time.perf_counter() - began))
        cpu.append(1e3 * (time.thread_time() - spent))
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}


def toy_stage(parameters: int) -> Stage:
    """A stage of that many numbers, each an array of its own."""

    def init(key: Any) -> dict[str, Any]:
        return {f"layer_{i}": {"kernel": jnp.zeros(())} for i in range(parameters)}

    def loss(params: Any, frozen: Any, batch: Any, keys: Any) -> Any:
        total = sum(jax.tree.leaves(params))
        return (total - 1.0) ** 2 * jnp.ones(batch["image_16"].shape[0]), {}

    return Stage("toy", BatchNeeds(image_sizes=(16,)), init, loss)


def loop(leaves: int, steps: int) -> float:
    """Milliseconds of wall time per step, the median over windows of ten."""
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(f"{folder}/shapes", 256, split="train", side=16, seed=0)
        settings = {
            "data.train": f"{folder}/shapes/*.tar",
            "data.validation": "none",
            "train.duration": f"{steps} steps",
            "train.batch_size": "8",
            "train.log_every": "10",
        }
        workdir = pathlib.Path(folder) / "run"
        stage = toy_stage(leaves // ARRAYS_PER_PARAMETER)
        train(load_config("upsampler:tiny", settings), stage, {}, workdir)
        records = read_metrics(workdir)
    rates = [r["examples_per_second"] for r in records if "examples_per_second" in r]
    return statistics.median(8e3 / rate for rate in rates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leaves", type=int, default=1700)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    found = dispatch(args.leaves, args.steps)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count()},
        "jax": jax.__version__,
        "load_average": os.getloadavg(),
        "leaves": args.leaves,
        "dispatch_ms": found,
        "loop_ms": loop(args.leaves, args.steps),
    }
    print(json.dumps(record, indent=1))
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
