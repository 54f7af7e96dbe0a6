"""Make a bundle of a CLIP that was trained elsewhere: OpenAI's, OpenCLIP's or Hugging Face's.

Takes a weights file (.safetensors; .pt, .pth, .bin or .ckpt) or the folder of a model as the Hub
lays it out. The bundle can be config.clip.path of a run, and --clip of `unclip embed`. No code from
the file runs. Sizes are read from the weights; the activation and the number of heads from the
config.json beside them, or from the options.

Example:
  unclip import clip --weights clip-vit-large-patch14 --out clip-l14
  unclip import clip --weights vit_l14.safetensors --activation quick_gelu --out clip-l14
"""

import argparse
import pathlib

from unclip_jax.cli.sampling_arguments import positive
from unclip_jax.generation import compose
from unclip_jax.interop import Extras, write_bundle
from unclip_jax.interop.clip_facts import Facts
from unclip_jax.interop.import_clip import import_clip_stage
from unclip_jax.interop.tensor_files import DTYPES
from unclip_jax.models.transformer import ACTIVATIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--weights", required=True, type=pathlib.Path, metavar="PATH", help="a file or a folder")
    add("--out", required=True, type=pathlib.Path, metavar="BUNDLE")
    add("--activation", choices=tuple(ACTIVATIONS), help="of the MLPs: OpenAI's are quick_gelu")
    add("--vision-heads", type=positive, metavar="N")
    add("--text-heads", type=positive, metavar="N")
    add("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    add("--license", metavar="ID", help="of the weights, such as mit")


def run(args: argparse.Namespace) -> int:
    """Writes the bundle and says what is in it; exit code 0."""
    facts = Facts(args.activation, args.vision_heads, args.text_heads)
    stage = import_clip_stage(args.weights, facts)
    write_bundle(compose([stage]), args.out, dtype=args.dtype, extras=Extras(license=args.license))
    m = stage.model
    print(
        f"{stage.parameter_count:,} parameters, {m.activation}, {m.loss} loss\n"
        f"pictures: {m.image_size} px in patches of {m.patch_size}, width {m.vision_width}, "
        f"{m.vision_layers} layers, {m.vision_heads} heads\n"
        f"texts: {m.context_length} tokens, width {m.text_width}, {m.text_layers} layers, "
        f"{m.text_heads} heads\n"
        f"{args.out}: embeddings of {m.embedding_dim} numbers, {args.dtype}"
    )
    return 0
