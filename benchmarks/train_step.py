"""One training step of our networks beside diffusers' in PyTorch, eager and compiled.

    python benchmarks/train_step.py                      # 1 and 2 threads of a CPU, float32
    python benchmarks/train_step.py --device gpu         # bfloat16, paper widths, with MFU
    python benchmarks/train_step.py --cells prior --sides jax eager --threads 1 --blocks 2
    python benchmarks/train_step.py --cells prior --threads 2 --cold     # time to the first step
    python benchmarks/train_step.py --threads 2 --sides split jax eager  # a device for each core

Needs what tests/oracles/requirements.txt lists (`make oracles` installs it), and a C++ compiler for
torch.compile. A step is the forward pass, mean squared error, backward pass and AdamW, on nets of
the same layers, sizes and parameter counts, the same batch and dtype. Nothing is compared that only
one side does: no EMA, no metrics. "split" is ours with one device of JAX for each thread of a CPU.

How the sides take turns is in duel.py. Wall and CPU time are given: on a machine that others use,
the CPU time of one thread is the number to trust. All sides' allocators are told to keep freed
memory (as `unclip` tells its own, see docs/performance.md); --default-malloc leaves that out, in
cells of their own. Results are kept by cell in benchmarks/results/train_step_<device>.json. --cold
times only the first step, from the start of the process, with empty caches of compiled programs.
"""

import argparse
import os
import pathlib
from typing import Any

import duel

SIDES = ("jax", "split", "eager", "compiled")
CELLS = {
    "cpu": ["prior", "unet", "upsampler"],
    "gpu": ["prior_1b", "decoder_64", "upsampler_256", "upsampler_1024"],
}


def command(cell: str, side: str, args: argparse.Namespace, threads: int) -> list[str]:
    """What starts one side of a cell."""
    ours = side in ("jax", "split")
    script = duel.HERE / "sides" / ("jax_step.py" if ours else "torch_step.py")
    dtype = args.dtype or ("bfloat16" if args.device == "gpu" else "float32")
    found = [str(script), cell, "--device", args.device, "--threads", str(threads)]
    found += ["--dtype", dtype, "--batch", str(args.batch)]
    return found + {"compiled": ["--compile"], "split": ["--split"]}.get(side, [])


def add_mfu(results: dict[str, Any]) -> None:
    """Adds each side's rate and MFU: FLOPs of our traced net (training, 3 x forward) for all."""
    ours = results.get("jax", {})
    for side in SIDES:
        if "wall_ms_least" in results.get(side, {}) and "wall_ms_least" in ours:
            r = results[side]
            rate = ours["train_flops_per_step"] / (r["wall_ms_least"] / 1e3)
            r["tflops_per_second"] = rate / 1e12
            r["mfu"] = None if ours["peak_flops"] is None else rate / ours["peak_flops"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=tuple(CELLS), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: by device")
    parser.add_argument("--cells", nargs="+", help=f"default: {CELLS}")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["jax", "eager", "compiled"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of a CPU")
    parser.add_argument("--batch", type=int, default=0, help="0: the cell's own")
    parser.add_argument("--blocks", type=int, default=8, help="of each side")
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--label", help="a name for the cells, beside those of other machines")
    parser.add_argument("--cold", action="store_true", help="time to the first step only")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    gpu = args.device == "gpu"
    out = args.out or duel.HERE / "results" / f"train_step_{args.device}.json"
    for cell in args.cells or CELLS[args.device]:
        for threads in [os.cpu_count() or 1] if gpu else args.threads:
            name = cell if gpu else f"{cell}, {threads} threads"
            name += ", split" if "split" in args.sides else ""
            name += ", cold" if args.cold else ""
            name += ", default malloc" if args.default_malloc else ""
            name += f", {args.label}" if args.label else ""
            commands = {side: command(cell, side, args, threads) for side in args.sides}
            setting = {"default_malloc": args.default_malloc, "cold": args.cold}
            with duel.side_environment(threads, **setting) as environment:
                results = duel.measure(commands, environment, 0 if args.cold else args.blocks)
            add_mfu(results)
            duel.report(name, results)
            duel.keep(out, name, results, keeps_memory=not args.default_malloc)


if __name__ == "__main__":
    main()
