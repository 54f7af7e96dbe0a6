"""`unclip data emoji`: build the captioned emoji set."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from unclip_jax.data.emoji import PERMISSIVE_STYLES, SIZES, STYLES, EmojiSet, build_emoji_set
from unclip_jax.data.emoji.draw import Progress as Report

HELP = "build a set of captioned pictures: one concept drawn in several styles"
EPILOG = """example:
  unclip data emoji --out data/emoji64
  unclip data emoji --out data/emoji256 --size 256 --styles noto fluent-3d twemoji
"""
_PLAIN_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to `parser`."""
    parser.description = HELP
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--size", type=int, choices=SIZES, default=64, help="side in pixels (default: 64)"
    )
    parser.add_argument(
        "--styles",
        nargs="+",
        default=list(PERMISSIVE_STYLES),
        metavar="STYLE",
        help=f"of {', '.join(STYLES)} (default: those with a permissive licence, "
        f"{', '.join(PERMISSIVE_STYLES)})",
    )
    parser.add_argument("--tones", action="store_true", help="also the skin-toned forms")
    parser.add_argument("--limit", type=int, metavar="N", help="only N concepts, for a quick run")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes that draw (default: one for each CPU)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder for downloads (default: $UNCLIP_CACHE, else the user's cache folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Builds the set, or finds it built, and says what is in it."""
    with _bar() if sys.stderr.isatty() else _plain_lines() as report:
        emoji_set = build_emoji_set(
            args.out,
            size=args.size,
            styles=args.styles,
            tones=args.tones,
            limit=args.limit,
            jobs=args.jobs,
            cache=args.cache,
            progress=report,
        )
    print(_summary(emoji_set))
    return 0


def _summary(emoji_set: EmojiSet) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in emoji_set.splits.items())
    return (
        f"{emoji_set.directory}: {splits}; {emoji_set.concepts:,} concepts, "
        f"{len(emoji_set.styles)} styles, {emoji_set.recipe.size} px "
        f"({emoji_set.duplicates} duplicates left out). "
        "See README.md, LICENSES.md and contact_sheet.png there."
    )


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, tuple[TaskID, _Rate]] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, rate=""), _Rate(done)
            task, rate = tasks[stage]
            progress.update(task, completed=done, rate=f"{rate.now(done):.0f}/s")

        yield report


@contextlib.contextmanager
def _plain_lines() -> Iterator[Report]:
    """A line at the start and the end of each stage, and every ten seconds between."""
    rates: dict[str, _Rate] = {}
    spoke = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal spoke
        first = stage not in rates
        rate = rates.setdefault(stage, _Rate(done)).now(done)
        if first or done == total or time.monotonic() - spoke >= _PLAIN_SECONDS:
            spoke = time.monotonic()
            left = f", {rate:.0f}/s, {(total - done) / rate:.0f} s left" if rate else ""
            print(f"{stage}: {done}/{total}{left}", file=sys.stderr, flush=True)

    yield report


class _Rate:
    """Items a second since it was made, leaving out those that were done before."""

    def __init__(self, done: int) -> None:
        self._before = done
        self._start = time.monotonic()

    def now(self, done: int) -> float:
        return (done - self._before) / max(time.monotonic() - self._start, 1e-3)
