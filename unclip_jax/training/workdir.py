"""The run's directory: made, claimed for one config, and marked when complete.

workdir/config.json      the resolved config
        run.json         facts of every start
        checkpoints/     state and data position
        set_aside/       checkpoints that were found damaged
        metrics.jsonl    and tensorboard/
        goodput.jsonl    where the time went
        heartbeats/      what each process was doing last
        stacks/          of processes that the watchdog ended
        bad_samples.P.jsonl  samples that process P could not use
        samples/         pictures drawn during training
        done.json        written when the plan is completed
"""

import json
import pathlib
from typing import Any

from unclip_jax.config import RunConfig, from_mapping, to_mapping
from unclip_jax.data.files import replace_file
from unclip_jax.errors import StorageError, UserError
from unclip_jax.parallel.processes import is_primary

# Settings that a resumed run may alter.
MAY_CHANGE = ("train", "sampling", "mesh", "data", "init", "faults")


def prepare(config: RunConfig, workdir: pathlib.Path) -> None:
    """Makes the workdir and writes config.json, or refuses one that holds another run."""
    if workdir.parts and workdir.parts[0].endswith(":"):  # a Path has one slash of a URL's two
        raise UserError(
            f"the workdir {workdir} is a URL: give a folder that all hosts share, such as a "
            "mounted file share; shards may stay on a bucket"
        )
    path = workdir / "config.json"
    mine = to_mapping(config)
    if path.exists():
        theirs = to_mapping(from_mapping(_read(path)))  # with the defaults of newer settings
        for name, ours, other in _differences(mine, theirs):
            raise UserError(
                f"{workdir} holds a run with config.{name}={other!r}, but {ours!r} is asked for: "
                "give another --workdir, or the run's own settings"
            )
    if not is_primary():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(mine, indent=2).encode())
    except OSError as error:
        raise StorageError(f"can't write the workdir {workdir}: {error.strerror}") from None


def mark_done(workdir: pathlib.Path, step: int) -> None:
    """Writes done.json: the configured duration is over."""
    if is_primary():
        replace_file(workdir / "done.json", json.dumps({"step": step}).encode())


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or delete it") from None


def _differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    flat_mine, flat_theirs = _flat(mine), _flat(theirs)
    return [
        (name, value, flat_theirs.get(name))
        for name, value in flat_mine.items()
        if name.split(".")[0] not in MAY_CHANGE and value != flat_theirs.get(name)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
