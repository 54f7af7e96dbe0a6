"""Stop a launched run: SIGTERM (its state is saved), a period of grace, SIGKILL.

Example:
  unclip launch stop prior-emoji
  unclip launch stop prior-emoji --grace 0
"""

import argparse
import time

from unclip_jax.cli.launch import look_after
from unclip_jax.cli.launch_arguments import add_home_argument
from unclip_jax.errors import UserError
from unclip_jax.launch.record import find

_POLL_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("name", help="of the run")
    add("--grace", type=float, metavar="SECONDS", help="(default: the run's limits.grace_seconds)")
    add_home_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Returns when the run is over; exit code 0."""
    record = find(args.home.absolute(), args.name)
    if record.state.phase == "over":
        raise UserError(f"{args.name} is over already: {record.state.text}")
    grace = record.spec.limits.grace_seconds if args.grace is None else args.grace
    record.ask_to_stop(grace)
    while record.state.phase != "over":
        if record.acquire():  # nobody looks after it: we do, and find the request
            look_after(record)
            break
        time.sleep(_POLL_SECONDS)
    print(f"{args.name} is over: {record.state.text}")
    return 0
