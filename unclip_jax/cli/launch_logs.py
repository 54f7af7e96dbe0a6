"""Print the logs of a launched run; with --follow, as long as it goes on.

Example:
  unclip launch logs prior-emoji --tail 50
  unclip launch logs prior-emoji --process 3 --follow
"""

import argparse
import pathlib
import time

from unclip_jax.cli.launch_arguments import add_home_argument
from unclip_jax.errors import UserError
from unclip_jax.launch.record import Record, find

_POLL_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("name", help="of the run")
    add("--process", type=int, metavar="P", help="only of this one")
    add("--attempt", type=int, metavar="N", help="(default: the last)")
    add("--tail", type=int, metavar="LINES", help="only the last ones of each process")
    add("--follow", action="store_true", help="go on until the run is over")
    add_home_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints; exit code 0."""
    record = find(args.home.absolute(), args.name)
    attempt = record.state.attempt if args.attempt is None else args.attempt
    if not args.follow and not _logs(record, attempt, args.process):
        raise UserError(f"{args.name}: attempt {attempt} has no such log in {record.folder}/logs")
    read: dict[pathlib.Path, int] = {}
    while True:
        over = record.state.phase == "over"
        latest = record.state.attempt if args.attempt is None else args.attempt
        for path in _logs(record, latest, args.process):
            lines, read[path] = _new_lines(path, read.get(path, 0))
            for line in lines[-args.tail :] if args.tail else lines:
                print(f"[{int(path.stem.rpartition('-')[2])}] {line}", flush=True)
        if not args.follow or over:
            return 0
        time.sleep(_POLL_SECONDS)


def _logs(record: Record, attempt: int, process: int | None) -> list[pathlib.Path]:
    which = "*" if process is None else f"{process:03d}"
    return sorted((record.folder / "logs").glob(f"attempt-{attempt:03d}.process-{which}.log"))


def _new_lines(path: pathlib.Path, offset: int) -> tuple[list[str], int]:
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), offset + len(whole)
