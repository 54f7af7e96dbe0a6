"""Show launched runs: where each is, and how its attempts ended.

Example:
  unclip launch status
  unclip launch status prior-emoji
"""

import argparse
import time

from unclip_jax.cli.launch_arguments import add_home_argument
from unclip_jax.launch.record import Record, find, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("name", nargs="?", help="of one run, for more about it")
    add_home_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints; exit code 0."""
    home = args.home.absolute()
    if args.name:
        print(_story(find(home, args.name)))
        return 0
    runs = [Record(home, name) for name in names(home)]
    if not runs:
        print(f"no runs in {home}")
    for record in runs:
        print(f"{record.name:30} {record.spec.backend:9} {_line(record)}")
    return 0


def _line(record: Record) -> str:
    state = record.state
    if state.phase == "over":
        return f"{state.result.lower()}: {state.text}"
    alone = "" if _has_launcher(record) else f" (no launcher: unclip launch attach {record.name})"
    return f"{state.phase}, attempt {state.attempt}{alone}"


def _has_launcher(record: Record) -> bool:
    if not record.acquire():
        return True
    record.release()
    return False


def _story(record: Record) -> str:
    spec, state = record.spec, record.state
    lines = [
        f"{record.name}: {_line(record)}",
        f"  on {spec.backend}, {spec.processes} processes"
        + (f", job {state.job}" if state.job else ""),
        *([f"  tags: {', '.join(spec.tags)}"] if spec.tags else []),
        f"  hosts: {', '.join(host.name for host in state.hosts) or '-'}",
        f"  command: {' '.join(spec.command)}",
        f"  record: {record.folder}",
    ]
    for past in state.past:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(past.ended))
        step = "" if past.step is None else f" after step {past.step}"
        lines.append(f"  attempt {past.attempt} {past.kind.lower()}{step}, {when} UTC: {past.text}")
    return "\n".join(lines)
