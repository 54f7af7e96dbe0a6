"""Index shards now, so that a run need not do it at its start.

Writes <shard>.uidx beside each shard (or into --index-dir), 4 bytes a sample, and manifest.json,
with which a set of many shards opens at once. What is indexed already is left alone, so a stopped
command goes on where it was. Shards may be local or remote (https://, gs://, s3://, …).

Example:
  unclip data index 'data/{00000..00099}.tar'
  unclip data index 's3://bucket/laion/*.tar' --index-dir index --threads 32
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

from unclip_jax.data.catalog import TarShard, summarise
from unclip_jax.data.manifest import write_manifest
from unclip_jax.data.shards import expand_shards
from unclip_jax.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shards", nargs="+", metavar="PATTERN")
    parser.add_argument("--index-dir", metavar="DIR", help="keep indexes there (read-only data)")
    parser.add_argument("--rebuild", action="store_true", help="also where an index is current")
    parser.add_argument(
        "--threads", type=int, default=4, help="shards scanned at once (default: 4)"
    )


def run(args: argparse.Namespace) -> int:
    """Indexes the shards; exit code 0."""
    paths = expand_shards(args.shards)

    def index(path: str) -> TarShard:
        return summarise(path, args.index_dir, rebuild=args.rebuild)

    shards = []
    with (
        ThreadPoolExecutor(args.threads) as pool,
        progress("index", len(paths), "shards") as advance,
    ):
        for shard in pool.map(index, paths):
            shards.append(shard)
            advance(1)
    write_manifest(shards, args.index_dir)
    samples = sum(shard.summary.samples for shard in shards)
    size = sum(shard.summary.tar_bytes for shard in shards)
    print(f"{len(paths)} shards, {samples} samples, {size / 1e9:.3f} GB")
    return 0
