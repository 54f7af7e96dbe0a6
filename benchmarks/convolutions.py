"""3x3 convolutions on one core of a CPU: XLA's own, Winograd's (models/winograd.py), PyTorch's.

    .venv-oracles/bin/python benchmarks/convolutions.py

GFLOP/s, counted for all as two for each multiply-add of the direct convolution: least time of many
calls. Winograd's kernels are transformed before, as in a loop over steps; "compile" is what XLA
takes for one layer. Shapes are layers of the decoder and upsampler that sampling.py draws with.
Results go to benchmarks/results/convolutions.json.
"""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}

import duel
import jax
import numpy as np
import torch

from unclip_jax.models import winograd

SHAPES = [  # batch, side, channels in, channels out
    *((2, 32, 64, 64), (2, 32, 192, 64), (2, 16, 128, 128), (2, 16, 320, 128), (2, 8, 192, 192)),
    *((2, 8, 448, 192), (2, 4, 256, 256), (1, 64, 64, 64), (1, 64, 192, 64), (1, 32, 128, 128)),
]
RESULTS = pathlib.Path(__file__).parent / "results" / "convolutions.json"


def least_seconds(call: Callable[[], Any], seconds: float = 0.3) -> float:
    """The fastest of as many calls as fit."""
    call()
    times, over = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < over:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def ours(function: Callable[..., jax.Array], x: Any, kernel: Any) -> tuple[float, float]:
    """(seconds of a call, seconds to compile)."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(x, kernel).compile()
    took = time.perf_counter() - began
    return least_seconds(lambda: compiled(x, kernel).block_until_ready()), took


def torch_seconds(x: np.ndarray, kernel: np.ndarray) -> float:
    """Of a call of PyTorch, channels last as ours are."""
    theirs = torch.from_numpy(x).permute(0, 3, 1, 2)
    weights = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    weights = weights.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return least_seconds(lambda: torch.nn.functional.conv2d(theirs, weights, padding=1))


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before XLA makes its threads
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for b, s, c, o in SHAPES:
        x = jax.numpy.asarray(rng.normal(size=(b, s, s, c)), np.float32)
        kernel = jax.numpy.asarray(rng.normal(size=(3, 3, c, o)), np.float32)
        gflop = 2 * b * s * s * 9 * c * o / 1e9
        xla, xla_compile = ours(winograd.plain_convolve, x, kernel)
        wino, wino_compile = ours(winograd.convolve, x, winograd.transform_kernel(kernel))
        eager = torch_seconds(np.array(x), np.array(kernel))
        name = f"{b} x {s} x {s} x {c} -> {o}"
        sides = {
            "xla": {"gflop_per_s": gflop / xla, "compile_s": xla_compile},
            "winograd": {"gflop_per_s": gflop / wino, "compile_s": wino_compile},
            "torch": {"gflop_per_s": gflop / eager},
        }
        print(name, {side: round(r["gflop_per_s"]) for side, r in sides.items()},
              f"compile {xla_compile:.2f} s, {wino_compile:.2f} s", flush=True)  # fmt: skip
        duel.keep(RESULTS, name, sides)


if __name__ == "__main__":
    main()
