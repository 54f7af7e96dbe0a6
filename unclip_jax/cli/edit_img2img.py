"""Draw a prompt starting from a picture (SDEdit).

--strength is the part of the noising that the picture goes through first: at 0.3 little changes, at
0.8 only its large shapes are left.

Example:
  unclip edit img2img --bundle bundle --image sketch.png --prompt "a red apple" --out apples
"""

import argparse

from unclip_jax.cli import edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    add = parser.add_argument
    add("--prompt", required=True, metavar="TEXT")
    add("--strength", type=float, default=0.6, help="above 0, at most 1 (default: 0.6)")
    edit_arguments.add_negative_argument(parser)
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    picture = edit_arguments.read_picture(args.image)
    edited = session.pipeline.image_to_image(
        picture, args.prompt, strength=args.strength, count=args.n, seed=args.seed,
        negative=args.negative, **session.options,
    )  # fmt: skip
    return edit_arguments.write(edited, args, session, given=[("picture", picture)])
