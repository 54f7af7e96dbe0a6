"""The whole way on real data: shards, CLIP, prior, decoder, upsampler, samples, evaluation.

Builds the emoji set, trains a 16 px decoder and a 16 -> 64 px upsampler on CLIP embeddings of its
own, draws pictures from prompts and measures how well they follow them. Each step is an ordinary
`unclip` command, printed as it is run. Called again, it goes on where it was.

Example:
  unclip demo --out demo                # about 20 minutes on two CPU cores
  unclip demo --out demo --minutes 120  # the pictures get better the longer it trains
  unclip demo --out quick --quick       # under four minutes: everything works, nothing is pretty
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import sys
import time

from unclip_jax.cli.demo_steps import Step, shares, steps
from unclip_jax.cli.demo_summary import write_summary
from unclip_jax.errors import UserError
from unclip_jax.launch import child

DEFAULT_MINUTES = 17.0
QUICK_MINUTES = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("demo"))
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"training time in all, beside set-up and evaluation (default {DEFAULT_MINUTES:g})",
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, 8 -> 16 -> 32 px")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was asked for; kept in the folder, so that a second call means the same."""

    minutes: float
    quick: bool


def run(args: argparse.Namespace) -> int:
    """Runs the steps that are not done yet; exit code 0, or that of the step that failed."""
    default = QUICK_MINUTES if args.quick else DEFAULT_MINUTES
    plan = _agree(args.out, Plan(args.minutes or default, args.quick))
    began = time.monotonic()
    for step in steps(args.out, minutes=plan.minutes, quick=plan.quick):
        code = _run(step)
        if code:
            print(f"\nunclip demo: stopped in '{step.title}'; call it again to go on from there")
            return code
    seconds = time.monotonic() - began
    print(write_summary(args.out, shares(plan.quick), seconds))
    return 0


def _agree(out: pathlib.Path, plan: Plan) -> Plan:
    """Writes the plan of a new folder; refuses a folder that was begun with another."""
    path = out / "plan.json"
    if path.exists():
        theirs = Plan(**json.loads(path.read_text()))
        if theirs != plan:
            asked = "--quick" if plan.quick else f"--minutes {plan.minutes:g}"
            raise UserError(
                f"{out} was begun with minutes={theirs.minutes:g} quick={theirs.quick}, not "
                f"{asked}: give the same, or another --out"
            )
        return plan
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(plan)))
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}") from None
    return plan


def _run(step: Step) -> int:
    print(f"\n== {step.title}", flush=True)
    if step.product.exists():
        print(f"   done before: {step.product}", flush=True)
        return 0
    print(f"   unclip {shlex.join(step.arguments)}", flush=True)
    began = time.monotonic()
    code = child.run([sys.executable, "-m", "unclip_jax", *step.arguments])
    if code == 0:
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
        step.product.touch()
    return code
