"""What is launched and where, from the command line; shared by `launch` and `sweep`."""

import argparse
import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from unclip_jax.config import load_config
from unclip_jax.config.typed import to_plain
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.launch import code as code_module
from unclip_jax.launch import secrets, ssh
from unclip_jax.launch.backends import BACKENDS, Backend
from unclip_jax.launch.record import default_home
from unclip_jax.launch.spec import Code, Host, Install, RunSpec, from_json

# Log lines that show progress; the group is the step. Of a command of the user's, any line does.
STEPS = r"(\d+)/\d+ steps"
ANY_LINE = r"^(?:.*?(\d+)/\d+ steps)?"


def add_home_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--home`."""
    parser.add_argument(
        "--home",
        type=pathlib.Path,
        default=default_home(),
        metavar="DIR",
        help="where launched runs are recorded (default: $UNCLIP_LAUNCH_HOME or ~/.unclip/launch)",
    )


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says where to run."""
    add = parser.add_argument
    add("--on", required=True, choices=list(BACKENDS), help="where to run")
    add("--processes", type=int, metavar="N", help="how many (default: one for each host)")
    add("--hosts", type=pathlib.Path, metavar="FILE", help="of ssh: [user@]host[:port] per line")
    add("--known-hosts", default="", metavar="FILE", help="host keys (default: ssh's own file)")
    add("--identity", default="", metavar="FILE", help="private key (default: ssh's own)")
    add("--root", default="unclip", metavar="DIR", help="of ours on hosts (default: ~/unclip)")
    add("--python", metavar="PATH", help="an interpreter on the hosts that has unclip_jax")
    add(
        "--base-python",
        default="python3",
        metavar="NAME",
        help="what else makes an environment on the hosts; 3.11 or newer (default: python3)",
    )
    add("--setup", default="", metavar="SHELL", help="run on every host first")
    add("--code", metavar="DIR", help="git repository to push (default: this one), or none")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="for every process")
    add(
        "--secret", action="append", default=[], metavar="NAME",
        help="a variable of this environment that every process gets; never written down",
    )  # fmt: skip
    add("--tag", action="append", default=[], metavar="TAG", help="a label")
    add(
        "--option", action="append", default=[], metavar="GROUP.NAME=VALUE", dest="options",
        help="a setting of the backend, of limits or of restarts, such as slurm.partition=gpu",
    )  # fmt: skip
    add_home_argument(parser)


def spec_from(
    args: argparse.Namespace,
    hosts: tuple[Host, ...],
    name: str,
    command: Sequence[str],
    workdir: str,
    progress: str,
) -> tuple[RunSpec, bytes]:
    """(the spec, the packed code) of a run.

    Args:
      hosts: all of `given_hosts`, or some.
      command: `{python}` in it is the interpreter there.
    """
    backend = BACKENDS[args.on]
    _refuse_secrets(args.env, command)
    if workdir and backend.remote and not workdir.startswith("/"):
        raise UserError(
            f"--workdir {workdir}: must be an absolute path, of a folder that the hosts share"
        )
    code, packed, install, python = _code_and_python(args, backend)
    home = args.home.absolute()
    values = {
        "name": name,
        "backend": args.on,
        "command": [python if word == "{python}" else word for word in command],
        "workdir": workdir,
        "processes": 1,
        "env": args.env,
        "secrets": args.secret,
        "hosts": to_plain(hosts),
        "known_hosts": args.known_hosts,
        "identity": args.identity,
        "root": args.root if backend.remote else str(home / name / "host"),
        "cwd": "" if backend.remote else os.getcwd(),
        "host_python": "python3" if backend.remote else sys.executable,
        "code": to_plain(code),
        "install": to_plain(install),
        "setup": args.setup,
        "progress": progress,
        "tags": args.tag,
        **({backend.group: {}} if backend.group else {}),
    }
    _add_options(values, args.options, {"limits", "restarts", backend.group} - {""})
    count = backend.processes(values.get(backend.group, {})) if backend.group else 1
    values["processes"] = _processes(args, len(hosts), count)
    spec = from_json(json.dumps(values))
    backend.check(spec)
    return spec, packed


def train_command(args: argparse.Namespace) -> list[str]:
    """`unclip train …` for the config and overrides of the command line, which are checked."""
    if not args.workdir:
        raise UserError("--workdir is missing: where the run keeps its checkpoints")
    load_config(args.config, args.overrides)
    overrides = [f"--config.{path}={text}" for path, text in args.overrides.items()]
    return [
        *("{python}", "-m", "unclip_jax", "train"),
        *("--config", args.config, "--workdir", args.workdir, *overrides),
    ]


def own_command(words: Sequence[str]) -> list[str]:
    """A command given after `--`; a leading `unclip` runs with the interpreter on the hosts."""
    return ["{python}", "-m", "unclip_jax", *words[1:]] if words[0] == "unclip" else list(words)


def name_of(config: str) -> str:
    """A run's name from its config: configs/prior.py:emoji is prior-emoji."""
    path, _, variant = config.partition(":")
    stem = pathlib.Path(path).stem
    text = f"{stem}-{variant}" if variant else stem
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")


def given_hosts(args: argparse.Namespace) -> tuple[Host, ...]:
    """Those of the hosts file; none where a backend finds its own."""
    if args.on == "ssh" and not args.hosts:
        raise UserError("--on ssh needs --hosts FILE, with [user@]host[:port] on each line")
    if args.hosts and args.on != "ssh":
        raise UserError(f"--on {args.on} takes no --hosts")
    return ssh.read_hosts(args.hosts) if args.hosts else ()


def _refuse_secrets(env: Sequence[str], command: Sequence[str]) -> None:
    for pair in env:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--env {pair}: write NAME=VALUE")
        if secrets.is_secret_name(name) or secrets.find(value):
            raise UserError(f"--env {name}: looks like a secret; use --secret {name}")
    secrets.refuse_in_command(tuple(command))


def _processes(args: argparse.Namespace, hosts: int, default: int) -> int:
    count = args.processes if args.processes is not None else max(default, hosts)
    if count < 1 or (hosts and count % hosts):
        raise UserError(f"--processes {count}: must be a multiple of the {max(1, hosts)} hosts")
    return count


def _code_and_python(
    args: argparse.Namespace, backend: Backend
) -> tuple[Code | None, bytes, Install | None, str]:
    """(pushed code, its bytes, environment to make, interpreter) of a backend."""
    if not (backend.remote and backend.installs):
        return None, b"", None, args.python or backend.python or sys.executable
    if args.code == "none":
        if not args.python:
            raise UserError("--code none needs --python PATH: an interpreter on the hosts")
        return None, b"", None, args.python
    folder = pathlib.Path(args.code or ".")
    code, packed = code_module.pack(folder)
    if args.python:
        return code, packed, None, args.python
    pins = "constraints.txt" if (folder / "constraints.txt").is_file() else ""
    lock = code_module.lock_of(folder, args.base_python, backend.extras)
    install = Install(python=args.base_python, extras=backend.extras, pins=pins, lock=lock)
    return code, packed, install, f"{args.root}/venvs/{lock}/bin/python"


def _add_options(values: dict[str, Any], options: Sequence[str], known: set[str]) -> None:
    for text in options:
        path, equals, value = text.partition("=")
        group, dot, name = path.partition(".")
        if not (equals and dot):
            raise UserError(
                f"--option {text}: write GROUP.NAME=VALUE, as in limits.grace_seconds=60"
            )
        if group not in known:
            raise UserError(f"--option {path}: no such group{did_you_mean(group, known)}")
        values.setdefault(group, {})[name] = value
