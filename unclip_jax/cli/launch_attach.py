"""Look after a run whose launcher was killed: follow it, restart it when due, until it is over.

Example:
  unclip launch attach prior-emoji
"""

import argparse

from unclip_jax.cli.launch import look_after, take
from unclip_jax.cli.launch_arguments import add_home_argument
from unclip_jax.launch.record import find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("name", help="of the run")
    add_home_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Goes on with the run; its exit code tells how it ended."""
    record = find(args.home.absolute(), args.name)
    take(record)
    return look_after(record)
