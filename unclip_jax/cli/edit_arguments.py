"""What the `unclip edit` commands share: their options, pictures read, results written.

Every command writes grid.png (a row and a column for what the operation varies, with its labels),
a PNG for each picture and edit.json: what was asked, of which weights, and what was found.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from unclip_jax import __version__
from unclip_jax.cli.sampling_arguments import (
    add_sampling_arguments,
    make_folder,
    positive,
    sampling_overrides,
)
from unclip_jax.errors import UserError
from unclip_jax.generation import Edited, Pipeline
from unclip_jax.generation.runner import Options
from unclip_jax.interop import Bundle, read_bundle
from unclip_jax.pictures.grid import Picture, labelled_grid
from unclip_jax.progress import progress


def add_edit_arguments(parser: argparse.ArgumentParser, *, count: bool = True) -> None:
    """The options that all editing commands have."""
    add = parser.add_argument
    add("--bundle", required=True, type=pathlib.Path, metavar="DIR", help="see `unclip export`")
    add("--out", required=True, type=pathlib.Path, metavar="DIR")
    add("--seed", type=int, default=0, help="(default: 0)")
    if count:
        add("--n", type=positive, default=4, help="pictures of each kind (default: 4)")
    add_sampling_arguments(parser)


def add_image_argument(parser: argparse.ArgumentParser, help: str = "the picture") -> None:
    """`--image FILE`."""
    parser.add_argument("--image", required=True, type=pathlib.Path, metavar="FILE", help=help)


def add_iterations_argument(parser: argparse.ArgumentParser) -> None:
    """`--iterations N`, of the inversion."""
    parser.add_argument(
        "--iterations", type=positive, default=4,
        help="network calls for each step of the inversion; more are more exact (default: 4)",
    )  # fmt: skip


def add_negative_argument(parser: argparse.ArgumentParser) -> None:
    """`--negative TEXT`."""
    parser.add_argument("--negative", metavar="TEXT", help="what guidance moves away from")


@dataclasses.dataclass(frozen=True)
class Session:
    """A bundle that is ready to draw, and the options of every operation."""

    bundle: Bundle
    pipeline: Pipeline
    options: Options


def open_session(args: argparse.Namespace) -> Session:
    """Checks --out, loads the bundle and reads the sampling options."""
    make_folder(args.out)
    bundle = read_bundle(args.bundle)
    options: Options = {
        "sampling": sampling_overrides(args, bundle.cascade),
        "batch_size": args.batch_size,
        "report": lambda stage, total: progress(stage, total, "pictures"),
    }
    return Session(bundle, Pipeline(bundle.cascade), options)


def read_picture(path: pathlib.Path) -> Picture:
    """uint8 RGB [height, width, 3]; transparent parts become white."""
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: can't be read as a picture: {error}") from None
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def read_mask(path: pathlib.Path) -> np.ndarray:
    """bool [height, width], True where the file is white: those parts are to be drawn."""
    return read_picture(path).mean(axis=2) > 127.5


def numbers(text: str) -> list[float]:
    """ "0,0.25,0.5" -> [0, 0.25, 0.5], for argparse."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers separated by commas, got {text!r}"
        ) from None


def write(
    edited: Edited,
    args: argparse.Namespace,
    session: Session,
    *,
    given: Sequence[tuple[str, Picture]] = (),
) -> int:
    """Writes the results; `given` pictures stand in a column of their own, first. Exit code 0."""
    files = _write_pictures(edited, args.out)
    rows = [list(row) for row in edited.images]
    columns = list(edited.columns)
    if given:
        shown = [picture for _, picture in given][: len(rows)]
        shown += [None] * (len(rows) - len(shown))  # type: ignore[list-item]
        rows = [[picture, *row] for picture, row in zip(shown, rows, strict=True)]
        columns = [given[0][0], *columns]
    labelled_grid(rows, list(edited.rows), columns).save(args.out / "grid.png")
    record = {
        "unclip_jax": __version__,
        "operation": edited.operation,
        "bundle": {"path": str(args.bundle), "sha256": session.bundle.sha256},
        "seed": args.seed,
        "sampling": {name: dataclasses.asdict(s) for name, s in edited.sampling.items()},
        "facts": dict(edited.facts),
        "images": files,
    }
    (args.out / "edit.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    print(f"{len(files)} pictures in {args.out}; side by side: {args.out / 'grid.png'}")
    return 0


def _write_pictures(edited: Edited, out: pathlib.Path) -> list[dict[str, Any]]:
    files = []
    for i, row in enumerate(edited.rows):
        for j, column in enumerate(edited.columns):
            name = f"{i:02d}_{j:02d}.png"
            Image.fromarray(edited.images[i, j]).save(out / name)
            files.append({"file": name, "row": row, "column": column})
    return files
