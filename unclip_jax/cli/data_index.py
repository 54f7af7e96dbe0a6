"""Index shards now, so that a run need not do it at its start.

Writes <shard>.uidx beside each shard (or into --index-dir): 4 bytes a sample.

Example:
  unclip data index 'data/{00000..00099}.tar'
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

from unclip_jax.data.catalog import summarise
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
    samples = size = 0

    def index(path: str):
        return summarise(path, args.index_dir, rebuild=args.rebuild).summary

    with (
        ThreadPoolExecutor(args.threads) as pool,
        progress("index", len(paths), "shards") as advance,
    ):
        for summary in pool.map(index, paths):
            samples += summary.samples
            size += summary.tar_bytes
            advance(1)
    print(f"{len(paths)} shards, {samples} samples, {size / 1e9:.3f} GB")
    return 0
