"""Clear away what runs that are over left behind: folders on hosts, rented machines, records.

Without names, all runs that are over. Workdirs are never touched.

Example:
  unclip launch gc
  unclip launch gc prior-emoji
"""

import argparse
import asyncio

from unclip_jax.cli.launch_arguments import add_home_argument
from unclip_jax.errors import UserError
from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.record import Record, find, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="(default: all that are over)")
    add_home_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Clears; exit code 0, or 1 if something could not be cleared."""
    home = args.home.absolute()
    left = 0
    for name in args.names or names(home):
        record = find(home, name)
        if record.state.phase != "over":
            if args.names:
                raise UserError(f"{name} is not over: `unclip launch stop {name}` first")
            continue
        left += not _clear(record)
    return 1 if left else 0


def _clear(record: Record) -> bool:
    backend = BACKENDS[record.spec.backend]
    failures = asyncio.run(backend.clear(record, print))
    for failure in failures:
        print(f"{record.name}: {failure}; the record stays")
    if not failures:
        record.remove()
        print(f"{record.name}: cleared")
    return not failures
