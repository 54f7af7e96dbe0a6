"""Seconds to draw pictures: our pipeline beside diffusers' UnCLIPPipeline, eager and compiled.

    python benchmarks/sampling.py                             # batch 1 and 8, float32, on a CPU
    python benchmarks/sampling.py --device gpu                # karlo's size, bfloat16
    python benchmarks/sampling.py --batch 1 --blocks 4        # one cell, added to the others
    python benchmarks/sampling.py --batch 8 --sides split compiled   # a device for each core
    python benchmarks/sampling.py --size tiny --sides jax eager --out tiny.json

Needs what tests/oracles/requirements.txt lists (`make oracles` installs it), and a C++ compiler for
torch.compile. Weights, steps (25, 25 and 7) and guidance are the same on all sides, see
sides/cascade.py; all run the same number of network calls. Tokens, the text tower and the
conversion to 8 bit are included. "jax" compiles a program for each stage, "whole" one for all;
"split" is "jax" with one device of JAX for each thread of a CPU.
With torch.compile, diffusers' four networks are compiled for the batch's shape.

How the sides take turns is in duel.py; "first after" in what is printed is the time from the start
of a side's process to its first picture, which includes reading weights and, unless programs are
in a cache, compiling. Results are kept by cell in benchmarks/results/sampling_<device>.json.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import duel

SIDES = ("jax", "split", "whole", "eager", "compiled")
BATCHES = {"cpu": [1, 8], "gpu": [1, 16]}


def command(folder: pathlib.Path, side: str, args: argparse.Namespace, threads: int) -> list[str]:
    """What starts one side of a cell but for its batch."""
    ours = side in ("jax", "split", "whole")
    script = duel.HERE / "sides" / ("jax_sample.py" if ours else "torch_sample.py")
    dtype = args.dtype or ("bfloat16" if args.device == "gpu" else "float32")
    found = [str(script), str(folder), "--device", args.device, "--threads", str(threads)]
    found += ["--dtype", dtype]
    found += ["--program", "whole" if side == "whole" else "stages"] if ours else []
    return found + {"compiled": ["--compile"], "split": ["--split"]}.get(side, [])


def write_cascade(size: str, folder: pathlib.Path) -> None:
    """The folder that all sides read; on the CPU, since the sides have the device."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(duel.HERE / "sides"))
    import cascade

    cascade.write(size, folder)
    del os.environ["JAX_PLATFORMS"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=tuple(BATCHES), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: by device")
    parser.add_argument("--size", choices=("tiny", "small", "karlo"), help="default: by device")
    parser.add_argument("--batch", nargs="+", type=int, help=f"default: {BATCHES}")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["jax", "eager", "compiled"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2], help="of a CPU")
    parser.add_argument("--blocks", type=int, default=5, help="of each side")
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--cold", action="store_true", help="time to the first picture only")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    gpu = args.device == "gpu"
    size = args.size or ("karlo" if gpu else "small")
    out = args.out or duel.HERE / "results" / f"sampling_{args.device}.json"
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / size
        write_cascade(size, folder)
        for batch in args.batch or BATCHES[args.device]:
            for threads in [os.cpu_count() or 1] if gpu else args.threads:
                name = f"{size}, batch {batch}" + ("" if gpu else f", {threads} threads")
                name += ", split" if "split" in args.sides else ""
                name += ", cold" if args.cold else ""
                name += ", default malloc" if args.default_malloc else ""
                commands = {
                    side: [*command(folder, side, args, threads), "--batch", str(batch)]
                    for side in args.sides
                }
                setting = {"default_malloc": args.default_malloc, "cold": args.cold}
                with duel.side_environment(threads, **setting) as environment:
                    results = duel.measure(commands, environment, 0 if args.cold else args.blocks)
                duel.report(name, results)
                duel.keep(out, name, results, keeps_memory=not args.default_malloc)


if __name__ == "__main__":
    main()
