"""Look for what is wrong with shards before a run is paid for.

Reads headers; with --content every sample is decoded too. Exit code 1 if a shard is unreadable, or
(with --strict) if anything was found.

With --content, the filter `clean` of later runs leaves out what could not be used. With --where
it also evaluates filters on the samples' json, and keeps the result for training.

Example:
  unclip data lint 'data/*.tar' --content
  unclip data lint 'data/*.tar' --where 'aesthetic >= 5' 'width >= 256'
"""

import argparse
import json

from unclip_jax.data.lint import ADVICE, LintReport, lint_shards
from unclip_jax.data.shards import expand_shards
from unclip_jax.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shards", nargs="+", metavar="PATTERN")
    parser.add_argument("--content", action="store_true", help="also decode every sample")
    parser.add_argument("--where", nargs="+", default=[], metavar="FILTER", help="'KEY >= VALUE'")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for any finding")
    parser.add_argument("--json", action="store_true", help="print the report as json")
    parser.add_argument("--index-dir", metavar="DIR", help="keep indexes there (read-only data)")


def run(args: argparse.Namespace) -> int:
    """Prints the report; exit code 0, or 1 as --help says."""
    paths = expand_shards(args.shards, must_exist=False)
    with progress("lint", len(paths), "shards") as advance:
        report = lint_shards(
            paths,
            content=args.content,
            where=args.where,
            index_dir=args.index_dir,
            advance=advance,
        )
    if args.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        _print(report)
    return 1 if not report.ok or (args.strict and report.findings) else 0


def _print(report: LintReport) -> None:
    fields = ", ".join(f"{name} {count}" for name, count in report.fields.most_common())
    print(f"{report.shards} shards, {report.samples} samples; fields: {fields or 'none'}")
    for problem, count in report.totals().most_common():
        print(f"\n{problem}: {count}  ({ADVICE[problem]})")
        of_this = [finding for finding in report.findings if finding.problem == problem]
        for finding in of_this[:5]:
            detail = f"  {finding.detail}" if finding.detail else ""
            print(f"  {finding.shard}: {finding.count}{detail}")
        if len(of_this) > 5:
            print(f"  … and {len(of_this) - 5} more shards")
    if not report.findings:
        print("nothing found")
