"""Show what an embedding holds: pictures from few of its principal components.

The components are those of the embeddings stored beside shards (--data), or of pictures (--from).

Example:
  unclip edit reconstruct --bundle bundle --image cat.png --data "data/train-*.tar" --out pca
  unclip edit reconstruct --bundle bundle --image cat.png --from pictures --components 2,8 --out out
"""

import argparse
import pathlib

import numpy as np

from unclip_jax import data
from unclip_jax.cli import edit_arguments
from unclip_jax.data import BatchFields
from unclip_jax.errors import UserError
from unclip_jax.generation.pca import PrincipalComponents, principal_components
from unclip_jax.generation.reconstruction import PAPER_COMPONENTS

MOST_EMBEDDINGS = 50_000  # enough for the paper's 320 components
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--image", required=True, action="append", type=pathlib.Path, metavar="FILE",
        help="may be given several times: a row each")  # fmt: skip
    add("--data", metavar="PATTERN", help="shards with embeddings of this CLIP (`unclip embed`)")
    add("--from", dest="folder", type=pathlib.Path, metavar="DIR", help="a folder of pictures")
    add("--components", type=edit_arguments.numbers, default=list(PAPER_COMPONENTS),
        metavar="LIST", help="how many to keep (default: the paper's 20 to 320)")  # fmt: skip
    edit_arguments.add_edit_arguments(parser, count=False)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    if (args.data is None) == (args.folder is None):
        raise UserError("give either --data PATTERN or --from DIR to find the components in")
    session = edit_arguments.open_session(args)
    pictures = [edit_arguments.read_picture(path) for path in args.image]
    basis = _stored(args.data, session) if args.data else _of_pictures(args.folder, session)
    edited = session.pipeline.reconstruct(
        pictures, basis, components=[int(k) for k in args.components], seed=args.seed,
        **session.options,
    )  # fmt: skip
    given = [("picture", picture) for picture in pictures]
    return edit_arguments.write(edited, args, session, given=given)


def _stored(pattern: str, session: edit_arguments.Session) -> PrincipalComponents:
    dataset = data.open_dataset(pattern, BatchFields(embeddings=("image",)))
    made_by, clip = dataset.provenance("image"), session.bundle.cascade.clip
    if clip is None or made_by.model_hash != clip.weights_sha256:
        raise UserError(
            f"{pattern}: the stored embeddings were made by another CLIP ({made_by.model}) than "
            "the bundle's: run `unclip embed --clip BUNDLE` again"
        )
    rows = dataset.embedding_rows("image", np.arange(min(len(dataset), MOST_EMBEDDINGS)))
    return principal_components(rows[~np.isnan(rows).any(axis=1)])


def _of_pictures(folder: pathlib.Path, session: edit_arguments.Session) -> PrincipalComponents:
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES)
    if len(found) < 2:
        raise UserError(f"--from {folder}: needs at least two pictures, found {len(found)}")
    embed = session.pipeline.embed_images
    z = [embed(edit_arguments.read_picture(path)[None]) for path in found]
    return principal_components(np.concatenate(z))
