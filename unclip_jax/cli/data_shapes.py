"""Build a set of coloured shapes whose captions can be checked exactly.

"a red circle", "three blue squares", "a green star to the left of a white ring". One tenth of the
(colour, shape) pairs occurs only in the split "unseen".

Example:
  unclip data shapes --out data/shapes --count 20000
  unclip data shapes --out data/shapes-unseen --count 1000 --split unseen
"""

import argparse

from unclip_jax.data.shapes import write_shapes
from unclip_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=10_000, help="pictures (default: 10000)")
    parser.add_argument("--split", choices=("train", "unseen"), default="train")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Writes the shards; exit code 0."""
    if args.count < 1 or args.size < 8:
        raise UserError("--count must be at least 1 and --size at least 8")
    paths = write_shapes(args.out, args.count, split=args.split, side=args.size, seed=args.seed)
    print(f"{args.count} pictures in {len(paths)} shards in {args.out}")
    return 0
