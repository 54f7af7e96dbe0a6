"""Make a bundle of karlo's own checkpoints (its diffusers folder: `unclip import diffusers`).

DIR holds prior-ckpt*, decoder-ckpt*, improved-sr-ckpt* and *_stats.th. --clip is OpenAI's ViT-L/14
in any form that `unclip import clip` reads, or a bundle of it. Reading .ckpt files needs torch
2.6 or newer; it runs in a process without rights.

Example:
  unclip import karlo karlo-v1-alpha --clip clip-vit-large-patch14 --out karlo
"""

import argparse
import pathlib

from unclip_jax.cli.export import print_stages
from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.errors import UserError
from unclip_jax.generation import TrainedStage
from unclip_jax.interop import Extras, manifest, read_bundle, write_bundle
from unclip_jax.interop.import_clip import import_clip_stage
from unclip_jax.interop.karlo import Untold, read_karlo
from unclip_jax.interop.tensor_files import DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("folder", type=pathlib.Path, metavar="DIR", help="with karlo's checkpoints")
    add("--clip", required=True, type=pathlib.Path, metavar="PATH", help="OpenAI's ViT-L/14")
    add("--out", required=True, type=pathlib.Path, metavar="BUNDLE")
    add("--image-size", type=positive, default=64, metavar="PX", help="(default: 64)")
    add("--large-size", type=positive, default=256, metavar="PX", help="(default: 256)")
    add("--head-dim", type=positive, default=64, metavar="N", help="(default: 64)")
    add("--norm-groups", type=positive, default=32, metavar="N", help="(default: 32)")
    add("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    add("--license", metavar="ID", help="of the weights, such as creativeml-openrail-m")


def run(args: argparse.Namespace) -> int:
    """Writes the bundle and says what is in it; exit code 0."""
    untold = Untold(args.image_size, args.large_size, args.head_dim, args.norm_groups)
    cascade = read_karlo(args.folder, _clip(args.clip), untold)
    write_bundle(cascade, args.out, dtype=args.dtype, extras=Extras(license=args.license))
    print_stages(cascade, args.out, args.dtype)
    return 0


def _clip(path: pathlib.Path) -> TrainedStage:
    if not (path / manifest.FILE).is_file():
        return import_clip_stage(path)
    clip = read_bundle(path, ["clip"]).cascade.clip
    if clip is None:
        raise UserError(f"--clip {path}: this bundle has no CLIP")
    return clip
