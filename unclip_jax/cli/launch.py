"""Start a run here, on hosts with SSH, SLURM, Cloud TPUs or Kubernetes, and look after it.

Processes are started together, their logs are merged, and an attempt that ends is started again
according to how it ended. Ctrl-C stops the run (state saved); a launcher that was killed goes on
when the same command, or `unclip launch attach`, is called. --dry-run prints exactly what would be
run or sent. What follows `--` is run as it is.

Example:
  unclip launch --on local --processes 2 --config prior:emoji --workdir runs/prior
  unclip launch --on ssh --hosts hosts.txt --config prior:paper \
    --workdir /mnt/runs/prior --dry-run
  unclip launch --on slurm --option slurm.partition=gpu --option slurm.time=24:00:00 \
    --config prior:paper --workdir /shared/runs/prior --dry-run
  unclip launch --on local --name samples -- unclip sample --bundle bundle --prompt x --out samples
"""

import argparse
import asyncio

from unclip_jax.cli.launch_arguments import (
    ANY_LINE,
    STEPS,
    add_place_arguments,
    given_hosts,
    name_of,
    own_command,
    spec_from,
    train_command,
)
from unclip_jax.errors import UserError
from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.begin import begin
from unclip_jax.launch.record import Record
from unclip_jax.launch.supervisor import secret_values, stop_on_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--config", metavar="FILE:VARIANT", help="what `unclip train` is to train, with --config.…")
    add("--workdir", default="", help="the run's directory, as its processes see it")
    add("--name", help="of the run (default: the config's)")
    add("--dry-run", action="store_true", help="print what would be run or sent, and stop")
    add_place_arguments(parser)
    add("command", nargs="*", metavar="-- COMMAND", help="what to run instead of `unclip train`")


def run(args: argparse.Namespace) -> int:
    """Launches and looks after the run; its exit code tells how it ended."""
    if bool(args.config) == bool(args.command):
        raise UserError("give either --config FILE:VARIANT, or a command after --")
    if args.command:
        if not args.name:
            raise UserError("--name is missing: a command of your own needs a name")
        name, command, progress = args.name, own_command(args.command), ANY_LINE
    else:
        name = args.name or name_of(args.config)
        command, progress = train_command(args), STEPS
    spec, packed = spec_from(args, given_hosts(args), name, command, args.workdir, progress)
    if args.dry_run:
        print(BACKENDS[args.on].plan(spec, packed), end="")
        return 0
    if BACKENDS[args.on].place is not None:
        secret_values(spec)  # what is missing is missed before anything is recorded
    record = Record(args.home.absolute(), name)
    take(record)
    begin(record, spec, packed)
    return look_after(record)


def take(record: Record) -> None:
    """Becomes the run's launcher, or says who is."""
    if not record.acquire():
        raise UserError(
            f"{record.name} has a launcher already: see `unclip launch logs {record.name} --follow`"
        )


def look_after(record: Record) -> int:
    """Supervises the run of a record that this process has taken."""
    spec = record.spec
    with stop_on_signals(record, spec.limits.grace_seconds):
        kind = asyncio.run(BACKENDS[spec.backend].supervise(record, _show))
    return kind.value


def _show(line: str) -> None:
    print(line, flush=True)
