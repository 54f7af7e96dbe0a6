"""Draw what surrounds a picture: the picture on a larger canvas.

Margins are in pixels of the result. The decoder works on overlapping tiles that are made to agree
at every step, so the canvas may be much larger than what it was trained on.

Example:
  unclip edit outpaint --bundle bundle --image cat.png --left 64 --right 64 --out wide
"""

import argparse

from unclip_jax.cli import edit_arguments
from unclip_jax.cli.edit_inpaint import add_filling_arguments, filling_options
from unclip_jax.generation.inpainting import Margins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    for side in Margins._fields:
        parser.add_argument(
            f"--{side}", type=int, default=0, metavar="PX", help="to add (default: 0)"
        )
    add_filling_arguments(parser)
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    picture = edit_arguments.read_picture(args.image)
    margins = Margins(**{side: getattr(args, side) for side in Margins._fields})
    how = filling_options(args, session)
    edited = session.pipeline.outpaint(picture, margins, args.prompt, **how)
    return edit_arguments.write(edited, args, session, given=[("picture", picture)])
