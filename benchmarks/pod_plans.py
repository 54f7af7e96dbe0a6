"""Plans for every paper-size preset, written into docs/pod-plans.md by `unclip plan` itself.

Transformers are compiled for their topology, minutes each. U-Nets take many minutes of a CPU to
compile for a TPU and are answered by the model, unless --compile-unets is given.

    python benchmarks/pod_plans.py [--compile-unets] [--only prior:paper]
"""

import argparse
import pathlib
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "pod-plans.md"
EXAMPLES = "400000000"  # of the paper's and of OpenAI's CLIP, whose length is in epochs

# preset -> the arguments of its plan
TRANSFORMERS = {
    "clip:karlo": ["--topology", "v5p:4x4x4", "--examples", EXAMPLES],
    "clip:paper": ["--topology", "v5p:4x4x4", "--examples", EXAMPLES],
    "prior:karlo": ["--clip-config", "clip:karlo", "--topology", "v5p:2x2x4"],
    "prior:paper": ["--clip-config", "clip:paper", "--topology", "v5p:4x4x4"],
}
UNETS = {
    "decoder:karlo": ["--clip-config", "clip:karlo", "--topology", "v5p:4x4x4"],
    "decoder:paper": ["--clip-config", "clip:paper", "--topology", "v5p:4x4x8"],
    "upsampler:karlo": ["--topology", "v5p:4x4x4"],
    "upsampler:paper_256": ["--topology", "v5p:4x4x4"],
    "upsampler:paper_1024": ["--topology", "v5p:4x4x4"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile-unets", action="store_true")
    parser.add_argument("--only", choices=[*TRANSFORMERS, *UNETS])
    args = parser.parse_args()
    failed = []
    for preset, arguments in {**TRANSFORMERS, **UNETS}.items():
        if args.only not in (None, preset):
            continue
        fast = ["--fast"] if preset in UNETS and not args.compile_unets else []
        command = ["plan", "--config", preset, *arguments, *fast, "--record", str(PAGE)]
        print("unclip", *command, flush=True)
        done = subprocess.run([sys.executable, "-m", "unclip_jax", *command], check=False)
        if done.returncode not in (0, 1):  # 1: fits only with the change that the page names
            failed.append(preset)
    if failed:
        print("failed:", *failed, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
