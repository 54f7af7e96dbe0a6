"""Build a set of captioned pictures: one concept drawn in several styles, as webdataset shards.

Example:
  unclip data emoji --out data/emoji64
  unclip data emoji --out data/emoji256 --size 256 --styles noto fluent-3d twemoji
"""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from unclip_jax.data.emoji import PERMISSIVE_STYLES, SIZES, STYLES, EmojiSet, build_emoji_set
from unclip_jax.data.emoji.draw import Progress as Report
from unclip_jax.progress import Advance, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to `parser`."""
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
    with _stages() as report:
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
def _stages() -> Iterator[Report]:
    """A progress bar for each stage of the build, from when it is first heard of to the next."""
    with contextlib.ExitStack() as bars:
        advance: dict[str, Advance] = {}
        seen: dict[str, int] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in advance:
                bars.close()
                unit = "packages" if stage == "download" else "pictures"
                advance[stage] = bars.enter_context(progress(stage, total, unit, done))
                seen[stage] = done
            advance[stage](done - seen[stage])
            seen[stage] = done

        yield report
