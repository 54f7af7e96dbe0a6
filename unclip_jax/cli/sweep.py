"""Try many settings: train (or run another command) once for each, and compare.

The sweep file lists its trials or declares a space to search. A sweep that was interrupted goes on
when it is called again: finished trials are kept, unfinished ones resumed. Writes results.csv,
results.md, results.html with curves and what matters, and best.json, which `unclip train` takes.

Example:
  unclip sweep --config configs/sweeps/prior_lr.py --on local --concurrency 2 --workdir sweeps/lr
  unclip sweep --config prior_lr:tiny --on local --workdir sweeps/lr --dry-run
  unclip sweep --config guidance --on local --workdir sweeps/guidance \
    --given bundle=demo/bundle --given data=demo/data
"""

import argparse
import asyncio
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from unclip_jax.cli.argument_types import positive
from unclip_jax.cli.launch_arguments import (
    ANY_LINE,
    STEPS,
    add_place_arguments,
    given_hosts,
    own_command,
    spec_from,
)
from unclip_jax.config import load_config
from unclip_jax.config.sweeps import Sweep, load_sweep
from unclip_jax.errors import UserError
from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.chain import chained
from unclip_jax.launch.spec import RunSpec
from unclip_jax.sweeps.driver import Driver, Launch, batch
from unclip_jax.sweeps.host_groups import Hosts, divide
from unclip_jax.sweeps.results import as_text, text
from unclip_jax.sweeps.suggest import ADAPTIVE, Nothing, suggest
from unclip_jax.sweeps.trials import DONE, SweepFolder, Trial, trial_id

EXIT_INTERRUPTED = 75  # as of `unclip train`: start it again to go on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--config", required=True, metavar="FILE:VARIANT", help="a sweep file, or one that ships")
    add("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="of the whole sweep")
    add(
        "--concurrency", type=positive, default=1, metavar="N",
        help="trials at a time; of ssh's hosts each gets as many as the next",
    )  # fmt: skip
    add("--trials", type=positive, metavar="N", help="how many (default: as the sweep says)")
    add("--seed", type=int, default=0, help="of the search (default: 0)")
    add(
        "--given", action="append", default=[], metavar="NAME=VALUE",
        help="what the sweep's command leaves open, such as bundle=demo/bundle",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="list trials and print what the first would run")
    add("--results", action="store_true", help="only write the tables and pictures anew")
    add_place_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs what is left of the sweep; exit code 0, 1 if no trial ended well, 75 if interrupted."""
    if args.on == "skypilot":
        raise UserError("--on skypilot only writes task files, and a sweep waits for results")
    groups = divide(given_hosts(args), args.concurrency)
    sweep = _asked_for(args)
    folder = SweepFolder(args.workdir)

    def launch(trial: Trial, hosts: Hosts) -> tuple[RunSpec, bytes]:
        return _spec(args, sweep, trial, hosts)

    _try_settings(sweep)
    if args.dry_run:
        print(_plan(args, sweep, folder, groups, launch), end="")
        return 0
    folder.open(_declaration(sweep, args.seed))
    try:
        over = True
        if not args.results:
            driver = Driver(
                sweep,
                folder,
                launch,
                backend=args.on,
                concurrency=args.concurrency,
                groups=groups,
                seed=args.seed,
                grace=_grace(launch, folder, groups[0]),
                show=lambda line: print(line, flush=True),
            )
            over = asyncio.run(driver.run())
        from unclip_jax.sweeps.page import summary, write_results  # matplotlib: seconds

        write_results(sweep, folder)
        print(summary(sweep, folder))
        if not over:
            return EXIT_INTERRUPTED
        return 0 if any(trial.status == DONE for trial in folder.trials()) else 1
    finally:
        folder.close()


def _asked_for(args: argparse.Namespace) -> Sweep:
    """The sweep file's sweep, with what the command line adds."""
    sweep = load_sweep(args.config)
    given = {}
    for pair in args.given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--given {pair}: write NAME=VALUE")
        given[name] = value
    changes: dict[str, Any] = {
        "base": {**{k: _given(v, given) for k, v in sweep.base.items()}, **args.overrides},
        "command": tuple(_given(word, given) for word in sweep.command),
        "after": tuple(tuple(_given(word, given) for word in words) for words in sweep.after),
    }
    if args.trials and sweep.space is not None:
        changes["space"] = dataclasses.replace(sweep.space, count=args.trials)
    elif args.trials:
        changes["trials"] = sweep.trials[: args.trials]
    return dataclasses.replace(sweep, **changes)


def _given(word: Any, given: dict[str, str]) -> Any:
    """`word` with names in braces replaced by what was given for them."""
    if not isinstance(word, str):
        return word
    for name in re.findall(r"\{(\w+)\}", word):
        if name in given:
            word = word.replace("{" + name + "}", given[name])
        elif name != "out":
            raise UserError(f"this sweep needs --given {name}=…")
    return word


def _spec(
    args: argparse.Namespace, sweep: Sweep, trial: Trial, hosts: Hosts
) -> tuple[RunSpec, bytes]:
    """What the launcher runs for one trial."""
    settings = as_text({**sweep.base, **trial.overrides})
    options = [
        part.replace("{name}", name).replace("{value}", value)
        for name, value in settings.items()
        for part in sweep.option
    ]
    train = ("unclip", "train", "--config", sweep.config, "--workdir", "{out}")
    first = train if sweep.config else sweep.command
    commands = [
        own_command([word.replace("{out}", str(trial.out)) for word in words])
        for words in ((*first, *options), *sweep.after)
    ]
    place = argparse.Namespace(**{**vars(args), "home": trial.folder.parents[1] / "launch"})
    return spec_from(
        place,
        hosts,
        trial.run_name,
        chained("{python}", commands),
        str(trial.out) if sweep.config else "",
        STEPS if sweep.config else ANY_LINE,
    )


def _try_settings(sweep: Sweep) -> None:
    """Finds a setting that does not exist before the first trial runs, not after the last."""
    if not sweep.config:
        return
    points: list[Any] = list(sweep.trials) or [suggest(sweep, [], 0)]
    for overrides in points:
        if not isinstance(overrides, Nothing):
            load_config(sweep.config, as_text({**sweep.base, **overrides}))


def _declaration(sweep: Sweep, seed: int) -> dict[str, Any]:
    """What must stay the same while a sweep goes on; how many trials may change."""
    values = dataclasses.asdict(sweep)
    del values["trials"]
    if sweep.space is not None:
        del values["space"]["count"]
    return json.loads(json.dumps({**values, "seed": seed}))


def _grace(launch: Launch, folder: SweepFolder, hosts: Hosts) -> float:
    spec, _ = launch(Trial(folder.path / "trials" / "any", 0, {}), hosts)
    return spec.limits.grace_seconds


def _plan(
    args: argparse.Namespace,
    sweep: Sweep,
    folder: SweepFolder,
    groups: Sequence[Hosts],
    launch: Launch,
) -> str:
    trials: list[Trial] = []
    while not isinstance(found := suggest(sweep, trials, args.seed), Nothing):
        trials.append(Trial(folder.path / "trials" / trial_id(found), len(trials), found))
        if sweep.space is not None and sweep.space.search in ADAPTIVE:
            break
    lines = []
    for trial in trials:
        settings = " ".join(f"{name}={text(value)}" for name, value in trial.overrides.items())
        lines.append(f"# trial {trial.number} {trial.id}: {settings}")
    count = sweep.space.count if sweep.space is not None else len(trials)
    if len(trials) < count:
        lines.append(f"# {count - len(trials)} more, chosen by the results of earlier ones")
    if len(groups) > 1:
        lines.append(f"# {len(groups)} trials at a time, each on one of")
        lines += [f"#   {', '.join(host.name for host in group)}" for group in groups]
    spec, packed = launch(trials[0], groups[0])
    shown = "\n".join(lines) + "\n\n"
    together = BACKENDS[args.on].together
    if together is not None and len(trials) > 1 and batch(sweep, args.on):
        specs = [launch(trial, groups[0])[0] for trial in trials[: batch(sweep, args.on)]]
        shown += together.plan(specs, args.concurrency) + "\n"
    return shown + BACKENDS[args.on].plan(spec, packed)
