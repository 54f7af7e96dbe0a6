"""Draw the way from one picture, or prompt, to another.

Two --image: between their embeddings, and between the noises that give them, so that the ends are
the pictures themselves; or, with --noise fixed, from one draw of noise for each of --n rows.
Two --prompt: between embeddings that the prior draws for them.

Example:
  unclip edit interpolate --bundle bundle --image cat.png --image dog.png --pictures 7 --out way
  unclip edit interpolate --bundle bundle --prompt "a cat" --prompt "a dog" --n 3 --out way
"""

import argparse
import pathlib

from unclip_jax.cli import edit_arguments
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--image", action="append", default=[], type=pathlib.Path, metavar="FILE", help="twice")
    add("--prompt", action="append", default=[], metavar="TEXT", help="twice, without --image")
    add("--pictures", type=positive, default=7, metavar="K",
        help="pictures on the way, ends included (default: 7)")  # fmt: skip
    add("--noise", choices=("inverted", "fixed"), default="inverted", help="(default: inverted)")
    edit_arguments.add_iterations_argument(parser)
    edit_arguments.add_negative_argument(parser)
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    if sorted((len(args.image), len(args.prompt))) != [0, 2]:
        raise UserError("give two --image or two --prompt")
    session = edit_arguments.open_session(args)
    shared = {"steps": args.pictures, "seed": args.seed, **session.options}
    if args.image:
        first, second = map(edit_arguments.read_picture, args.image)
        edited = session.pipeline.interpolate(
            first, second, noise=args.noise, rows=args.n, iterations=args.iterations, **shared
        )
    else:
        edited = session.pipeline.interpolate_prompts(
            *args.prompt, rows=args.n, negative=args.negative, **shared
        )
    return edit_arguments.write(edited, args, session)
