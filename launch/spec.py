"""What is to be run and where: the whole launch as one value, saved as JSON before it starts.

Nothing here is secret: of secrets it holds the names of environment variables, whose values are
read when a process is started, and sent to it by standard input.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from unclip_jax.config.typed import build, to_plain

from .restart import Restarts

BackendName = Literal["local", "ssh", "slurm", "gcp-tpu", "gke", "skypilot"]


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine: how it is called, how we log in, and the address that other hosts reach it at."""

    name: str
    address: str
    login: str | None = None  # what we connect to, if not `address`
    user: str | None = None
    port: int = 22


@dataclass(frozen=True, kw_only=True)
class Code:
    """Pushed code: a folder of the launching machine, packed under the hash of its content."""

    folder: str
    sha256: str
    files: int
    size: int  # bytes, packed


@dataclass(frozen=True, kw_only=True)
class Install:
    """A Python environment on the hosts, named by what it is made of."""

    python: str = "python3"
    extras: str = ""  # such as "tpu"
    pins: str = ""  # pip's constraints file in the code
    lock: str  # hash of the files that pin it


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long things may take."""

    grace_seconds: float = 120.0  # from SIGTERM to SIGKILL: saving the state must fit
    drain_seconds: float = 20.0  # what other processes get after one has failed
    lost_seconds: float = 120.0  # without a word from a host
    startup_seconds: float = 1800.0  # until the first step: compilation must fit
    stall_seconds: float = 1200.0  # between steps; 0 turns both off
    lease_seconds: float = 3600.0  # hosts stop by themselves when no launcher follows for so long


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Settings of a SLURM job; empty ones are left to the cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = ""
    gpus_per_node: str = ""
    cpus_per_task: str = ""
    mem: str = ""
    constraint: str = ""
    array: str = ""  # such as 0-7%2: one run for each index
    folder: str = ""  # on the shared file system; logs and marks of the job


@dataclass(frozen=True, kw_only=True)
class Tpu:
    """A Cloud TPU: TPU VMs by way of a queued resource, or directly."""

    project: str = ""
    zone: str = ""
    accelerator: str = ""  # such as v5litepod-16
    runtime: str = ""  # such as v2-alpha-tpuv5-lite
    spot: bool = False
    reserved: bool = False
    queued: bool = True
    network: str = "default"
    service_account: str = ""
    external_ips: bool = True
    user: str = "unclip"
    identity: str = ""  # private key file; its public half stands beside it
    deadline_minutes: float = 24 * 60.0  # of waiting for capacity


@dataclass(frozen=True, kw_only=True)
class Gke:
    """A JobSet on Google Kubernetes Engine."""

    namespace: str = "default"
    image: str = ""
    queue: str = ""  # Kueue's LocalQueue
    accelerator: str = ""  # such as tpu-v5-lite-podslice
    topology: str = ""  # such as 4x4
    chips_per_host: int = 4
    slices: int = 1
    secret: str = ""  # Kubernetes secret that holds the --secret variables
    service_account: str = ""
    priority: str = ""
    context: str = ""  # of kubectl


@dataclass(frozen=True, kw_only=True)
class SkyPilot:
    """A SkyPilot task."""

    accelerators: str = ""  # such as tpu-v5litepod-16 or H100:8
    cloud: str = ""
    image: str = ""
    spot: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run.

    Attributes:
      id: given when the run is recorded, so that runs of one name never meet on a host.
      command: the argument list of every process.
      workdir: of the run, as its processes see it; "" if the command has none.
      processes: how many; each host gets as many as the next.
      env: NAME=VALUE for every process.
      secrets: names of variables whose values are passed on, and masked in logs.
      hosts: given ones; a backend that provisions finds its own.
      root: folder on the hosts for code, environments and logs; relative to the login folder.
      cwd: where processes start, on `local`; elsewhere it is the pushed code.
      setup: shell commands that prepare a host, such as: module load cuda.
      progress: pattern of log lines that show a step; its first group is the step.
    """

    name: str
    id: str = "new"
    backend: BackendName
    command: tuple[str, ...]
    workdir: str = ""
    processes: int = 1
    env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    hosts: tuple[Host, ...] = ()
    known_hosts: str = ""
    identity: str = ""
    root: str = "unclip"
    cwd: str = ""
    host_python: str = "python3"
    code: Code | None = None
    install: Install | None = None
    setup: str = ""
    progress: str = ""
    tags: tuple[str, ...] = ()
    restarts: Restarts = field(default_factory=Restarts)
    limits: Limits = field(default_factory=Limits)
    slurm: Slurm | None = None
    tpu: Tpu | None = None
    gke: Gke | None = None
    skypilot: SkyPilot | None = None


def to_json(spec: RunSpec) -> str:
    """The spec as text; the same spec gives the same text."""
    return json.dumps(to_plain(spec), indent=1)


def from_json(text: str) -> RunSpec:
    """What `to_json` wrote."""
    values: dict[str, Any] = json.loads(text)
    return build(RunSpec, values, "spec")
