"""What a run was made of: versions, devices, data and code, written once per start."""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

from unclip_jax.data.files import replace_file

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def collect(**facts: Any) -> dict[str, Any]:
    """The facts of this process, with the caller's own (data fingerprint, parameters …) added."""
    from unclip_jax import __version__

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "unclip_jax": __version__,
        "python": platform.python_version(),
        "packages": {p: importlib.metadata.version(p) for p in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "devices": [str(d.device_kind) for d in jax.devices()],
        },
        "git_revision": _git_revision(),
        **facts,
    }


def write(workdir: pathlib.Path, facts: dict[str, Any]) -> None:
    """Appends this start to `workdir/run.json`, a list with one entry per start."""
    path = workdir / "run.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    replace_file(path, json.dumps([*starts, facts], indent=1).encode())


def amend(workdir: pathlib.Path, **facts: Any) -> None:
    """Adds facts to the newest start."""
    path = workdir / "run.json"
    *before, last = json.loads(path.read_text())
    replace_file(path, json.dumps([*before, {**last, **facts}], indent=1).encode())


def _git_revision() -> str | None:
    here = pathlib.Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
