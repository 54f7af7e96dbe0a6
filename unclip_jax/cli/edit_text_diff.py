"""Turn a picture towards a caption (the paper's text-diff), a column for each step of the way.

--base says what the picture is now, so that only the difference of the two captions acts.

Example:
  unclip edit text-diff --bundle bundle --image cat.png --to "an old cat" --base "a cat" --out diff
"""

import argparse

from unclip_jax.cli import edit_arguments
from unclip_jax.generation.text_diff import THETAS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    add = parser.add_argument
    add("--to", required=True, metavar="TEXT", help="what the picture should become")
    add("--base", metavar="TEXT", help="what it is (default: left out)")
    add("--theta", type=edit_arguments.numbers, default=list(THETAS), metavar="LIST",
        help="parts of the way; the paper goes to 0.25 to 0.5 (default: 0 to 0.5)")  # fmt: skip
    edit_arguments.add_iterations_argument(parser)
    edit_arguments.add_edit_arguments(parser, count=False)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    picture = edit_arguments.read_picture(args.image)
    edited = session.pipeline.text_diff(
        picture, args.to, base=args.base, thetas=args.theta, iterations=args.iterations,
        **session.options,
    )  # fmt: skip
    return edit_arguments.write(edited, args, session, given=[("picture", picture)])
