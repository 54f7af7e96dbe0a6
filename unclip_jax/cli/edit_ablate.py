"""Show what the prior is good for (paper, section 5.1): one noise, three signals for the decoder.

The caption alone; the caption with CLIP's text embedding in the place of an image embedding; the
caption with an image embedding that the prior drew.

Example:
  unclip edit ablate --bundle bundle --prompt "a red apple" --prompt "a blue car" --out ablation
"""

import argparse

from unclip_jax.cli import edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--prompt", action="append", required=True, metavar="TEXT", help="a row each"
    )
    edit_arguments.add_edit_arguments(parser, count=False)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    edited = session.pipeline.ablate(args.prompt, seed=args.seed, **session.options)
    return edit_arguments.write(edited, args, session)
