"""Store CLIP image embeddings beside shards, for runs with data.embeddings=stored.

Resumable: shards that already have embeddings of this CLIP are left alone.

Example:
  unclip embed --clip runs/clip --shards 'data/train-*.tar' 'data/val_style-*.tar'
"""

import argparse

import jax

from unclip_jax import data
from unclip_jax.cli.frozen import load_clip
from unclip_jax.data.catalog import summarise
from unclip_jax.data.shards import expand_shards
from unclip_jax.progress import progress
from unclip_jax.stages import features
from unclip_jax.stages.clip import make_clip
from unclip_jax.training.embed import embed_shard, pending


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--clip", required=True, metavar="DIR", help="a CLIP's workdir or a bundle")
    parser.add_argument("--shards", required=True, nargs="+", metavar="PATTERN")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")


def run(args: argparse.Namespace) -> int:
    """Embeds what is not embedded yet; exit code 0."""
    clip = load_clip(args.clip)
    net = make_clip(clip.model, clip.config.precision.compute)
    provenance = data.Provenance(model=clip.path, model_hash=clip.sha256, normalised=False)
    embed = jax.jit(lambda params, batch: features.image_embedding(net, {"clip": params}, batch))
    shards = expand_shards(args.shards)
    todo = list(pending(shards, provenance))
    samples = sum(summarise(shard).summary.samples for shard in todo)
    with progress("embed", samples, "pictures") as advance:
        for shard in todo:
            embed_shard(
                shard,
                lambda batch: embed(clip.params, batch),
                provenance,
                image_size=clip.model.image_size,
                batch_size=args.batch_size,
                dtype=args.dtype,
                advance=advance,
            )
    print(f"{len(todo)} shards embedded, {len(shards) - len(todo)} had embeddings already")
    return 0
