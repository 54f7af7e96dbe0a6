"""Print digests that tell whether two places hold the same data, and read it in the same order.

The fingerprint is the one checkpoints keep: of the sample list, not of the folder. --batches N adds
the digests of the first N global batches, --content the sha256 of each tar.

Example:
  unclip data digest 'data/*.tar' --batches 20 --batch-size 256 --image-size 64
"""

import argparse
import hashlib

from unclip_jax.data import BatchFields, DataPosition, open_dataset, train_batches
from unclip_jax.data.dataset import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shards", nargs="+", metavar="PATTERN")
    parser.add_argument("--image-size", type=int, default=64, help="0 for none (default: 64)")
    parser.add_argument("--context-length", type=int, default=77, help="0 for none (default: 77)")
    parser.add_argument("--batches", type=int, default=0, metavar="N")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--position", metavar="JSON", help="start at a checkpoint's data position")
    parser.add_argument("--content", action="store_true", help="also the sha256 of each tar")
    parser.add_argument("--index-dir", metavar="DIR", help="keep indexes there (read-only data)")


def run(args: argparse.Namespace) -> int:
    """Prints the digests; exit code 0."""
    fields = BatchFields(
        image_sizes=(args.image_size,) if args.image_size else (),
        context_length=args.context_length or None,
    )
    dataset = open_dataset(args.shards, fields, index_dir=args.index_dir)
    print(f"fingerprint {dataset.fingerprint}  {len(dataset)} samples")
    if args.content:
        for shard in dataset.shards:
            with open(shard.path, "rb") as file:
                print(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {shard.path}")
    if args.batches:
        _print_batches(dataset, args)
    return 0


def _print_batches(dataset: Dataset, args: argparse.Namespace) -> None:
    position = DataPosition.from_json(args.position) if args.position else None
    loader = train_batches(dataset, args.batch_size, seed=args.seed, position=position)
    try:
        for _ in range(args.batches):
            batch, after = next(loader)
            content = b"".join(batch[name].tobytes() for name in sorted(batch))
            print(f"{hashlib.sha256(content).hexdigest()}  until example {after.examples}")
    finally:
        loader.close()
