"""Make webdataset shards of a folder of pictures, of a compressed or unsorted tar, or of whatever
else can be trained on: a prepared tensorflow-datasets set, a clip-retrieval folder, drawn shapes.

In a folder, cat.txt beside cat.jpg is its caption, or metadata.jsonl / metadata.csv with columns
file_name and text.

Example:
  unclip data convert pictures/ --out data/mine
  unclip data convert 'tfds:coco_captions/2014/1.1.0:train?caption=captions/text' --out data/coco
"""

import argparse

from unclip_jax.data.catalog import summarise
from unclip_jax.data.convert import convert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("source", help="a folder, a tar, tfds:DIR, …")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--samples-per-shard", type=int, default=10_000, metavar="N")


def run(args: argparse.Namespace) -> int:
    """Writes and indexes the shards; exit code 0."""
    paths = convert(args.source, args.out, samples_per_shard=args.samples_per_shard, written=print)
    samples = sum(summarise(path).summary.samples for path in paths)
    print(f"{samples} samples in {len(paths)} shards")
    return 0
