"""Draw a prompt at several guidance scales of the decoder: a row for each, a column for each draw.

Example:
  unclip edit grid --bundle bundle --prompt "a red apple" --scale 1,2,4,8 --n 6 --out grid
"""

import argparse

from unclip_jax.cli import edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--prompt", required=True, metavar="TEXT")
    add("--scale", type=edit_arguments.numbers, default=[1.0, 2.0, 4.0, 8.0], metavar="LIST",
        help="1 is no guidance (default: 1,2,4,8)")  # fmt: skip
    edit_arguments.add_negative_argument(parser)
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    edited = session.pipeline.guidance_grid(
        args.prompt, scales=args.scale, count=args.n, seed=args.seed, negative=args.negative,
        **session.options,
    )  # fmt: skip
    return edit_arguments.write(edited, args, session)
