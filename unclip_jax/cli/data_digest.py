"""Print digests that tell whether two places hold the same data, and read it in the same order.

The fingerprint is the one checkpoints keep: of the sample list, not of the folder. --batches N adds
the digest of each of the first N global batches and the position after them, --content the sha256
of each tar. With --config the batches are those of a training run. --hosts H reads each batch in H
shares, as H processes would, and the digests must not change; --host h reads one share only.

Example:
  unclip data digest 'data/*.tar' --batches 20 --batch-size 256 --image-size 64
  unclip data digest --config clip:emoji --batches 20 --hosts 4
"""

import argparse
import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np

from unclip_jax import data, stages
from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.cli.frozen import load_clip
from unclip_jax.errors import UserError
from unclip_jax.training.datasets import training_batches, training_data, whole


@dataclasses.dataclass(frozen=True)
class _Reader:
    """What is read, and how its batches are begun: (position, rows) -> batches."""

    dataset: data.Dataset | data.Mixture
    batch_size: int
    begin: Callable[[data.DataPosition | None, np.ndarray], data.TrainBatches]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shards", nargs="*", metavar="PATTERN")
    add_config_arguments(parser, required=False)
    parser.add_argument("--image-size", type=int, default=64, help="0 for none (default: 64)")
    parser.add_argument("--context-length", type=int, default=77, help="0 for none (default: 77)")
    parser.add_argument("--batches", type=int, default=0, metavar="N")
    parser.add_argument("--batch-size", type=int, default=64, help="without --config (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="without --config (default: 0)")
    parser.add_argument("--hosts", type=int, default=1, metavar="H", help="read in H shares")
    parser.add_argument("--host", type=int, metavar="h", help="read share h only, 0 to H-1")
    parser.add_argument("--position", metavar="JSON", help="start at a checkpoint's data position")
    parser.add_argument("--content", action="store_true", help="also the sha256 of each tar")
    parser.add_argument("--index-dir", metavar="DIR", help="keep indexes there (read-only data)")


def run(args: argparse.Namespace) -> int:
    """Prints the digests; exit code 0."""
    if bool(args.shards) == bool(args.config):
        raise UserError("unclip data digest: give either patterns of shards or --config")
    reader = _of_config(args) if args.config else _of_shards(args)
    print(f"fingerprint {reader.dataset.fingerprint}  {len(reader.dataset)} samples")
    if args.content:
        for shard in whole(reader.dataset).shards:
            with open(shard.path, "rb") as file:
                print(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {shard.path}")
    if args.batches:
        _print_batches(reader, args)
    return 0


def _of_shards(args: argparse.Namespace) -> _Reader:
    fields = data.BatchFields(
        image_sizes=(args.image_size,) if args.image_size else (),
        context_length=args.context_length or None,
    )
    dataset = data.open_dataset(args.shards, fields, index_dir=args.index_dir)

    def begin(position: data.DataPosition | None, rows: np.ndarray) -> data.TrainBatches:
        return data.train_batches(
            dataset, args.batch_size, seed=args.seed, position=position, rows=rows
        )

    return _Reader(dataset, args.batch_size, begin)


def _of_config(args: argparse.Namespace) -> _Reader:
    config = config_from(args)
    clip = load_clip(config.clip.path) if config.clip.path else None
    stage = stages.build(config, clip.model if clip else None)
    dataset = training_data(config.data, stage.needs)
    return _Reader(
        dataset, config.train.batch_size, functools.partial(training_batches, config, dataset)
    )


def _print_batches(reader: _Reader, args: argparse.Namespace) -> None:
    position = data.DataPosition.from_json(args.position) if args.position else None
    hosts = range(args.hosts) if args.host is None else [args.host]
    loaders = [
        reader.begin(position, data.host_rows(reader.batch_size, args.hosts, host))
        for host in hosts
    ]
    try:
        for _ in range(args.batches):
            parts = [next(loader) for loader in loaders]
            names = sorted(parts[0][0])
            content = b"".join(batch[name].tobytes() for name in names for batch, _ in parts)
            after = parts[0][1]
            print(f"{hashlib.sha256(content).hexdigest()}  until example {after.examples}")
        print(f"position {after.to_json()}")
    finally:
        for loader in loaders:
            loader.close()
