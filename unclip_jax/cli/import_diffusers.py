"""Make a bundle of a diffusers unCLIP folder, such as karlo's: every weight, bit for bit.

Reads folders of UnCLIPPipeline and UnCLIPImageVariationPipeline, and of Kandinsky 2's priors, which
become a CLIP and a prior; diffusers itself is not needed.
Text-to-image folders have no CLIP image tower: lend them another folder's to edit pictures with the
bundle or to fine-tune from it.

Example:
  unclip import diffusers karlo-v1-alpha --out karlo
  unclip import diffusers karlo-v1-alpha --image-encoder karlo-image-variations --out karlo
  unclip import diffusers kandinsky-2-2-prior --out kandinsky
"""

import argparse
import pathlib

from unclip_jax.cli.export import print_stages
from unclip_jax.interop import Extras, write_bundle
from unclip_jax.interop.diffusers import read_folder
from unclip_jax.interop.tensor_files import DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("folder", type=pathlib.Path, metavar="DIR", help="a folder with a model_index.json")
    add("--out", required=True, type=pathlib.Path, metavar="BUNDLE")
    add("--image-encoder", type=pathlib.Path, metavar="DIR", help="with CLIP's image tower")
    add("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    add("--license", metavar="ID", help="of the weights, such as creativeml-openrail-m")


def run(args: argparse.Namespace) -> int:
    """Writes the bundle and says what is in it; exit code 0."""
    cascade = read_folder(args.folder, args.image_encoder)
    write_bundle(cascade, args.out, dtype=args.dtype, extras=Extras(license=args.license))
    print_stages(cascade, args.out, args.dtype)
    return 0
