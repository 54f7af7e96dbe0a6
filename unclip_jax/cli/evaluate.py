"""Measure how well pictures follow their prompts, on held-out captions.

Draws one picture for each caption, and compares CLIP embeddings of it, of the real picture and of
the caption. Writes report.md and report.json, prior/report.md (the prior's embeddings alone),
grid.png (real beside generated) and evaluation.json: what was measured. The bundle's own CLIP
judges, which flatters the bundle: compare systems that share one.

Example:
  unclip eval --bundle bundle --data data/emoji64 --limit 128 --out evaluation
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from unclip_jax import __version__
from unclip_jax.cli.held_out import HeldOut, read_held_out
from unclip_jax.cli.sampling_arguments import (
    add_sampling_arguments,
    make_folder,
    positive,
    sampling_overrides,
)
from unclip_jax.errors import UserError
from unclip_jax.evaluation import Report, evaluate_generation, evaluate_prior
from unclip_jax.generation import Cascade, Generated, Pipeline
from unclip_jax.interop import read_bundle
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.progress import progress

GRID_ROWS = 12  # of each split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--bundle", required=True, type=pathlib.Path, metavar="DIR", help="see `unclip export`")
    add("--data", required=True, type=pathlib.Path, metavar="DIR", help="holds SPLIT-*.tar")
    add("--splits", nargs="+", default=["val_style", "val_concept"], metavar="SPLIT")
    add("--limit", type=positive, metavar="N", help="captions of each split (default: all)")
    add("--seed", type=int, default=0, help="of the choice and of the pictures (default: 0)")
    add("--out", required=True, type=pathlib.Path, metavar="DIR")
    add_sampling_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Draws, measures and writes; exit code 0."""
    bundle = read_bundle(args.bundle)
    size, clip_size = picture_size(bundle.cascade), _clip_size(bundle.cascade)
    out = make_folder(args.out)
    held_out = read_held_out(
        args.data, args.splits, sizes=(size, clip_size), limit=args.limit, seed=args.seed
    )
    pipeline = Pipeline(bundle.cascade)
    drawn = pipeline(
        held_out.captions,
        images_per_prompt=1,
        seed=args.seed,
        sampling=sampling_overrides(args, bundle.cascade),
        batch_size=args.batch_size,
        report=lambda stage, total: progress(stage, total, "pictures"),
    )
    generation, prior = measure(pipeline, held_out, drawn, args.batch_size)
    generation.write(out)
    prior.write(out / "prior")
    _draw_grid(held_out, drawn.images[:, 0], out / "grid.png")
    record = {
        "unclip_jax": __version__,
        "bundle": {"path": str(args.bundle), "sha256": bundle.sha256},
        "data": held_out.fingerprints,
        "limit": args.limit,
        "seed": args.seed,
        "sampling": {name: dataclasses.asdict(s) for name, s in drawn.sampling.items()},
    }
    (out / "evaluation.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    print(f"{generation.to_markdown()}\n{len(held_out.captions)} captions; all files in {out}")
    return 0


def picture_size(cascade: Cascade) -> int:
    """The side of the pictures that a cascade ends with."""
    if cascade.prior is None or cascade.decoder is None:
        missing = "decoder" if cascade.prior else "prior"
        raise UserError(f"the bundle has no {missing}: there are no pictures to evaluate")
    return (cascade.upsamplers or (cascade.decoder,))[-1].model.image_size


def measure(
    pipeline: Pipeline, held_out: HeldOut, drawn: Generated, batch_size: int | None = None
) -> tuple[Report, Report]:
    """(of the pictures, of the prior's embeddings).

    Generated pictures, real ones of the same size and pictures of noise go the same way into CLIP.
    The prior is compared with embeddings of real pictures of CLIP's own size, as it was trained.
    """
    generated = drawn.images[:, 0]
    real = held_out.pictures[generated.shape[1]]
    noise = np.random.default_rng(drawn.seed).integers(0, 256, real.shape, np.uint8)
    text = pipeline.embed_texts(held_out.captions, batch_size)
    generation = evaluate_generation(
        pipeline.embed_images(generated, batch_size),
        pipeline.embed_images(real, batch_size),
        text,
        captions=held_out.captions,
        styles=held_out.styles,
        concepts=held_out.concepts,
        splits=held_out.splits,
        noise=pipeline.embed_images(noise, batch_size),
        seed=drawn.seed,
    )
    at_clip_size = held_out.pictures[_clip_size(pipeline.cascade)]
    prior = evaluate_prior(
        drawn.embeddings[:, 0],
        pipeline.embed_images(at_clip_size, batch_size),
        text,
        groups=held_out.concepts,
        splits=held_out.splits,
        seed=drawn.seed,
    )
    return generation, prior


def _clip_size(cascade: Cascade) -> int:
    assert cascade.clip is not None
    return cascade.clip.model.image_size


def _draw_grid(held_out: HeldOut, generated: np.ndarray, path: pathlib.Path) -> None:
    """Real beside generated pictures, the first captions of each split."""
    real = held_out.pictures[generated.shape[1]]
    rows = [i for split in held_out.fingerprints for i in _first(held_out.splits, split)]
    labels = [f"{held_out.captions[i]} ({held_out.splits[i]})" for i in rows]
    pictures = [[real[i], generated[i]] for i in rows]
    labelled_grid(pictures, labels, ["real", "generated"]).save(path)


def _first(splits: Sequence[str], wanted: str) -> list[int]:
    return [i for i, split in enumerate(splits) if split == wanted][:GRID_ROWS]
