"""Store CLIP's embeddings beside shards, for runs with data.embeddings=stored.

Resumable: shards that already have embeddings of this CLIP are left alone, and each is written
whole or not at all. The batch is split over this machine's devices; several machines share the
shards with --hosts and --host. Whoever finds all shards done writes the statistics (mean,
deviation, principal components) beside the first shard.

Example:
  unclip embed --clip runs/clip --shards 'data/train-*.tar' 'data/val_style-*.tar'
  unclip embed --clip runs/clip --shards 's3://bucket/laion/*.tar' --index-dir index \\
    --kinds image text --hosts 8 --host 3
"""

import argparse

from unclip_jax import data
from unclip_jax.cli.frozen import load_clip
from unclip_jax.data.catalog import summarise
from unclip_jax.data.shards import expand_shards
from unclip_jax.errors import UserError
from unclip_jax.progress import progress
from unclip_jax.training.embed import (
    KINDS,
    embed_shard,
    make_embed,
    needs_of,
    pending,
    write_statistics,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--clip", required=True, metavar="DIR", help="a CLIP's workdir or a bundle")
    parser.add_argument("--shards", required=True, nargs="+", metavar="PATTERN")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["image"], metavar="KIND",
                        help=f"of {', '.join(KINDS)} (default: image)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--hosts", type=int, default=1, metavar="H", help="machines at work")
    parser.add_argument("--host", type=int, default=0, metavar="h", help="which one this is")
    parser.add_argument("--index-dir", metavar="DIR", help="keep indexes there (remote shards)")


def run(args: argparse.Namespace) -> int:
    """Embeds what is not embedded yet; exit code 0."""
    if args.hosts < 1 or not 0 <= args.host < args.hosts:
        raise UserError(f"--host {args.host} of {args.hosts}: hosts are numbered from 0")
    clip = load_clip(args.clip)
    provenance = data.Provenance(model=clip.path, model_hash=clip.sha256, normalised=False)
    kinds = sorted(set(args.kinds), key=KINDS.index)
    shards = expand_shards(args.shards)
    mine = shards[args.host :: args.hosts]
    todo = pending(mine, kinds, provenance, args.index_dir)
    if todo:
        embed = make_embed(
            clip.model,
            clip.params,
            kinds,
            compute=clip.config.precision.compute,
            batch_size=args.batch_size,
        )
        samples = sum(summarise(shard, args.index_dir).summary.samples for shard in todo)
        with progress("embed", samples, "samples") as advance:
            for shard in todo:
                embed_shard(
                    shard,
                    embed,
                    kinds,
                    provenance,
                    needs=needs_of(kinds, clip.model),
                    batch_size=args.batch_size,
                    dtype=args.dtype,
                    index_dir=args.index_dir,
                    advance=advance,
                )
    print(f"{len(todo)} shards embedded, {len(mine) - len(todo)} had embeddings already")
    _write_statistics(args, shards, kinds, provenance)
    return 0


def _write_statistics(
    args: argparse.Namespace, shards: list[str], kinds: list[str], provenance: data.Provenance
) -> None:
    """Writes them once no shard is pending, on any host."""
    if pending(shards, kinds, provenance, args.index_dir):
        return
    for kind in kinds:
        if kind != "text_states":
            folder, slash, _ = shards[0].rpartition("/")
            path = f"{folder}{slash}{kind}_embedding.statistics.npz"
            found = write_statistics(shards, kind, path, args.index_dir)
            print(f"{path}: statistics of {found.count} rows")
