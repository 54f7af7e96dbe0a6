"""Draw variations of a picture.

By inversion: DDIM walks back to the noise that gives the picture, and forth again with new noise on
the way; a row for each eta, the share of noise. With --from-embedding: drawn anew from the
picture's CLIP embedding alone, which keeps what it shows and not how.

Example:
  unclip edit variations --bundle bundle --image cat.png --eta 0,0.5,1 --n 4 --out variations
  unclip edit variations --bundle bundle --image cat.png --from-embedding --out variations
"""

import argparse

from unclip_jax.cli import edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    add = parser.add_argument
    add("--eta", type=edit_arguments.numbers, default=[0.5, 1.0], metavar="LIST",
        help="between 0, the picture, and 1 (default: 0.5,1)")  # fmt: skip
    add("--from-embedding", action="store_true", help="without inversion")
    add("--caption", metavar="TEXT", help="of the picture (default: none)")
    edit_arguments.add_iterations_argument(parser)
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    picture = edit_arguments.read_picture(args.image)
    shared = {"count": args.n, "seed": args.seed, "caption": args.caption, **session.options}
    if args.from_embedding:
        edited = session.pipeline.variations_of_embedding(picture, **shared)
    else:
        edited = session.pipeline.variations(
            picture, etas=args.eta, iterations=args.iterations, **shared
        )
    return edit_arguments.write(edited, args, session, given=[("picture", picture)])
