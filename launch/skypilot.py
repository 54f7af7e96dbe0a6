"""SkyPilot: a task file, for whoever has SkyPilot; it provisions, recovers and tears down.

    unclip launch --on skypilot … --dry-run > task.yaml
    sky jobs launch task.yaml

A managed job (`sky jobs launch`) that loses its machine is run again elsewhere, and the trainer
resumes from its workdir, which must therefore be in a bucket or on a shared disk.
"""

import shlex
from typing import Any

import yaml

from unclip_jax.errors import UserError

from .commands import PROXIES
from .exits import ExitClass
from .record import Record
from .scheduled import JobState
from .spec import RunSpec, SkyPilot

PORT = 8476
_RESTARTED_CODES = [1, 75, 134, 137]


def task(spec: RunSpec) -> dict[str, Any]:
    """The task, as SkyPilot's YAML has it."""
    settings = spec.skypilot or SkyPilot()
    resources: dict[str, Any] = {
        "accelerators": settings.accelerators,
        "cloud": settings.cloud,
        "image_id": f"docker:{settings.image}" if settings.image else "",
        "use_spot": settings.spot,
        "job_recovery": {
            "max_restarts_on_errors": spec.restarts.budget,
            "recover_on_exit_codes": _RESTARTED_CODES,
        },
    }
    found: dict[str, Any] = {
        "name": spec.name,
        "num_nodes": spec.processes,
        "resources": {key: value for key, value in resources.items() if value != ""},
        "envs": dict(pair.split("=", 1) for pair in spec.env) | {"UNCLIP_RUN": spec.name},
        "run": _run(spec),
    }
    if not settings.image:  # the folder that `sky` is called in
        found["workdir"] = "."
        install = "python -m pip install --quiet -c constraints.txt ."
        found["setup"] = "\n".join([*([spec.setup] if spec.setup else []), install]) + "\n"
    if spec.secrets:
        found["secrets"] = dict.fromkeys(spec.secrets)  # null: asked from the environment
    return found


def _run(spec: RunSpec) -> str:
    lines = ["set -e"]
    if spec.processes > 1:
        lines += [
            f'export UNCLIP_COORDINATOR="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{PORT}"',
            "export UNCLIP_NUM_PROCESSES=$SKYPILOT_NUM_NODES",
            "export UNCLIP_PROCESS_ID=$SKYPILOT_NODE_RANK",
            f"unset {' '.join(PROXIES)}",
        ]
    return "\n".join([*lines, f"exec {shlex.join(spec.command)}"]) + "\n"


def plan(spec: RunSpec, packed: bytes) -> str:
    """The task file."""
    return yaml.safe_dump(task(spec), sort_keys=False, width=100)


def check(spec: RunSpec) -> None:
    """Raises `UserError` for what can't be."""
    if not (spec.skypilot or SkyPilot()).accelerators:
        raise UserError("--on skypilot needs --option skypilot.accelerators=…, such as H100:8")


class Export:
    """Writes the task file; running it is SkyPilot's business."""

    def __init__(self, spec: RunSpec):
        self._spec = spec

    async def submit(self, record: Record, attempt: int) -> str:
        """Writes the file into the record; returns its path."""
        path = record.folder / "task.yaml"
        path.write_text(plan(self._spec, b""))
        return str(path)

    async def state(self, record: Record, job: str) -> JobState:
        """Over at once."""
        return JobState(f"written; now: sky jobs launch {job}", ExitClass.DONE)

    async def new_log(self, record: Record, job: str) -> list[str]:
        """None."""
        return []

    async def cancel(self, record: Record, job: str, grace: float) -> None:
        """Nothing runs."""
