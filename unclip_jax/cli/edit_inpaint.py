"""Draw a part of a picture anew.

The mask is a picture of the same size, white where something new is wanted. Everything else stays
as it is, exactly, if the picture has the size that the bundle draws.

Example:
  unclip edit inpaint --bundle bundle --image cat.png --mask mask.png --prompt "a cat" --out filled
"""

import argparse
import pathlib

from unclip_jax.cli import edit_arguments
from unclip_jax.cli.edit_arguments import Session
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.generation.inpainting import How
from unclip_jax.stages.sampling import Resampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    edit_arguments.add_image_argument(parser)
    parser.add_argument("--mask", required=True, type=pathlib.Path, metavar="FILE")
    add_filling_arguments(parser)
    edit_arguments.add_edit_arguments(parser)


def add_filling_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of inpainting and outpainting."""
    add = parser.add_argument
    add("--prompt", metavar="TEXT", help="what the whole shows (default: what the picture shows)")
    add("--method", choices=("auto", "trained", "repaint"), default="auto",
        help="auto: trained, if the decoder was trained to inpaint; else repaint")  # fmt: skip
    add("--jump", type=positive, default=5, help="of repaint: length of stretches (default: 5)")
    add("--resamples", type=positive, default=2,
        help="of repaint: how often each is walked (default: 2)")  # fmt: skip
    edit_arguments.add_negative_argument(parser)


def filling_options(args: argparse.Namespace, session: Session) -> How:
    """What `add_filling_arguments` reads, as arguments of the operations."""
    return {
        **session.options,
        "count": args.n,
        "seed": args.seed,
        "method": args.method,
        "resampling": Resampling(jump=args.jump, resamples=args.resamples),
        "negative": args.negative,
    }


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    session = edit_arguments.open_session(args)
    picture, mask = edit_arguments.read_picture(args.image), edit_arguments.read_mask(args.mask)
    how = filling_options(args, session)
    edited = session.pipeline.inpaint(picture, mask, args.prompt, **how)
    masked = picture.copy()
    if mask.shape == picture.shape[:2]:
        masked[mask] = 255
    return edit_arguments.write(edited, args, session, given=[("picture", masked)])
