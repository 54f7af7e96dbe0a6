"""Draw pictures from prompts with a bundle.

Writes one PNG per picture (000_a-red-heart_seed0_2.png is picture 2 of prompt 0), grid.png of all,
and samples.json: what was asked, of which weights. The same seed gives the same pictures, however
many are drawn at a time and on however many devices.

Example:
  unclip sample --bundle bundle --prompt "a red heart" --prompt "a blue fish" --n 4 --out samples
  unclip sample --bundle bundle --prompt-file prompts.txt --set decoder.sampler=ddpm --out samples
  unclip sample --bundle bundle --prompt "a (red:1.5) heart" --n 16 --keep 4 --out best
"""

import argparse
import dataclasses
import json
import pathlib
import re
import unicodedata
from typing import Any

import numpy as np
from PIL import Image

from unclip_jax import __version__
from unclip_jax.cli.sampling_arguments import (
    add_sampling_arguments,
    make_folder,
    positive,
    sampling_overrides,
)
from unclip_jax.errors import UserError
from unclip_jax.generation import Generated, Pipeline
from unclip_jax.interop import read_bundle
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.progress import progress

GRID_ROWS = 100  # of the grid's prompts; a larger picture opens nowhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--bundle", required=True, type=pathlib.Path, metavar="DIR", help="see `unclip export`")
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    add("--prompt-file", type=pathlib.Path, metavar="FILE", help="one prompt per line")
    add("--n", type=positive, default=4, help="pictures per prompt (default: 4)")
    add("--keep", type=positive, metavar="K", help="of them, those that CLIP finds nearest")
    add("--negative", metavar="TEXT", help="what guidance moves away from")
    add("--seed", type=int, default=0, help="(default: 0)")
    add(
        "--program", choices=("stages", "whole"), default="stages",
        help="what is compiled: each stage, or all in one (default: stages)",
    )  # fmt: skip
    add("--out", required=True, type=pathlib.Path, metavar="DIR")
    add_sampling_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws and writes the pictures; exit code 0."""
    prompts = _prompts(args)
    out = make_folder(args.out)
    bundle = read_bundle(args.bundle)
    pipeline = Pipeline(bundle.cascade, program=args.program)
    drawn = pipeline(
        prompts,
        images_per_prompt=args.n,
        seed=args.seed,
        negative=args.negative,
        sampling=sampling_overrides(args, bundle.cascade),
        batch_size=args.batch_size,
        report=lambda stage, total: progress(stage, total, "pictures"),
    )
    numbers = np.tile(np.arange(args.n), (len(prompts), 1))
    scores = None
    if args.keep is not None:
        ranked = pipeline.rerank(drawn, args.keep, batch_size=args.batch_size)
        drawn, numbers, scores = ranked.generated, ranked.numbers, ranked.scores
    files = _write_pictures(drawn, numbers, scores, out)
    rows = [list(row) for row in drawn.images[:GRID_ROWS]]
    labelled_grid(rows, list(drawn.prompts[:GRID_ROWS])).save(out / "grid.png")
    record = {
        "unclip_jax": __version__,
        "bundle": {"path": str(args.bundle), "sha256": bundle.sha256},
        "seed": drawn.seed,
        "negative": args.negative,
        "sampling": {name: dataclasses.asdict(s) for name, s in drawn.sampling.items()},
        "images": files,
    }
    (out / "samples.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    print(f"{len(files)} pictures in {out}; side by side: {out / 'grid.png'}")
    return 0


def slug(text: str, length: int = 40) -> str:
    """A file name's part: ASCII letters and digits, words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:length].strip("-") or "prompt"


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt)
    if args.prompt_file is not None:
        try:
            lines = args.prompt_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompt-file {args.prompt_file}: can't be read: {error}") from None
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError("no prompt: give --prompt TEXT, or --prompt-file FILE with one per line")
    return prompts


def _write_pictures(
    drawn: Generated, numbers: np.ndarray, scores: np.ndarray | None, out: pathlib.Path
) -> list[dict[str, Any]]:
    """Writes a file for each picture; `numbers` and `scores` [P, n] are theirs."""
    files = []
    for i, prompt in enumerate(drawn.prompts):
        for j, picture in enumerate(drawn.images[i]):
            number = int(numbers[i, j])
            name = f"{i:03d}_{slug(prompt)}_seed{drawn.seed}_{number}.png"
            Image.fromarray(picture).save(out / name)
            entry = {"file": name, "prompt": prompt, "prompt_index": i, "image": number}
            files.append(entry if scores is None else entry | {"score": float(scores[i, j])})
    return files
