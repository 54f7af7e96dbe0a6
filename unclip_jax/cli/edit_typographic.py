"""Write words on a picture and see whether CLIP, and the decoder, fall for them.

A row for the picture as it is and one for each --word on a label across it: CLIP's probabilities of
--label and of the words are printed, and variations are drawn from each embedding alone.

Example:
  unclip edit typographic --bundle bundle --image a.png --label apple --word iPod --out probe
"""

import argparse

from unclip_jax.cli import edit_arguments
from unclip_jax.pictures.note import with_note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    add = parser.add_argument
    add("--label", required=True, metavar="TEXT", help="what the picture shows")
    add("--word", required=True, action="append", metavar="TEXT", help="what is written on it")
    add("--template", default="{}", help='what CLIP reads for a label (default: "{}")')
    edit_arguments.add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures, prints the probabilities; exit code 0."""
    session = edit_arguments.open_session(args)
    picture = edit_arguments.read_picture(args.image)
    pictures = {"as it is": picture} | {word: with_note(picture, word) for word in args.word}
    labels = list(dict.fromkeys([args.label, *args.word]))
    edited = session.pipeline.typographic_probe(
        pictures, labels, template=args.template, count=args.n, seed=args.seed,
        **session.options,
    )  # fmt: skip
    probabilities: dict[str, dict[str, float]] = edited.facts["probabilities"]  # type: ignore[assignment]
    for name, row in probabilities.items():
        shares = ", ".join(f"{label} {share:.1%}" for label, share in row.items())
        print(f"{name}: {shares}")
    given = [("picture", shown) for shown in pictures.values()]
    return edit_arguments.write(edited, args, session, given=given)
