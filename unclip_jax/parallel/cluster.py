"""Which processes make up a run, read from the environment that started them. No jax here.

who started them        what is read
anyone, `unclip launch` UNCLIP_COORDINATOR (HOST:PORT), UNCLIP_NUM_PROCESSES, UNCLIP_PROCESS_ID
SLURM (`srun`)          SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_STEP_NODELIST
Open MPI (`mpirun`)     OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_RANK, OMPI_MCA_orte_hnp_uri
TPUs on Kubernetes      TPU_WORKER_HOSTNAMES, TPU_WORKER_ID, MEGASCALE_{NUM_SLICES, SLICE_ID}
Kubernetes indexed jobs JOB_COMPLETION_INDEX, beside UNCLIP_COORDINATOR and UNCLIP_NUM_PROCESSES
JAX itself (TPU VMs)    UNCLIP_CLUSTER=jax: it asks the machine's metadata server

A single UNCLIP_ variable overrides that part of what the scheduler says. UNCLIP_HOSTS (names, in
the order of the processes) only serves error messages.
"""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unclip_jax.errors import UserError

TPU_PORT = 8476
_PORTS = (61440, 4096)  # first and number of the ports that job numbers are mapped to


@dataclass(frozen=True)
class Cluster:
    """The processes of a run, seen from one of them.

    Attributes:
      found_by: who told.
      coordinator: HOST:PORT, an address of process 0.
      processes, process: how many there are, and which one this is.
      hosts: host name of each process if known, else ().
      local_device: the one device of this host that this process may use; None is all.
    """

    found_by: str
    coordinator: str
    processes: int
    process: int
    hosts: tuple[str, ...] = ()
    local_device: int | None = None

    def name(self, process: int) -> str:
        """'process 2' or 'process 2 (node-7)'."""
        known = f" ({self.hosts[process]})" if process < len(self.hosts) else ""
        return f"process {process}{known}"


def _scontrol(nodes: str) -> list[str]:
    """The names in a SLURM node list such as rack[1-2]-n[03-04]; only SLURM itself knows how."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"SLURM's {' '.join(command)} failed ({error})") from None
    return done.stdout.split()


def detect(
    env: Mapping[str, str], hostnames: Callable[[str], list[str]] = _scontrol
) -> Cluster | None:
    """The cluster that this environment describes; None for a process on its own.

    Args:
      hostnames: expands a SLURM node list.

    Raises:
      UserError: the description is incomplete or contradicts itself.
    """
    found = _slurm(env, hostnames) or _open_mpi(env) or _tpu(env) or _kubernetes(env)
    own = {
        "coordinator": env.get("UNCLIP_COORDINATOR"),
        "processes": _number(env, "UNCLIP_NUM_PROCESSES"),
        "process": _number(env, "UNCLIP_PROCESS_ID"),
        "hosts": tuple(env["UNCLIP_HOSTS"].split(",")) if env.get("UNCLIP_HOSTS") else None,
    }
    given = {key: value for key, value in own.items() if value is not None}
    if not given and not found:
        return None
    fields = {"found_by": "UNCLIP_*", **(found or {}), **given}
    for field, variable in (
        ("coordinator", "UNCLIP_COORDINATOR"),
        ("processes", "UNCLIP_NUM_PROCESSES"),
        ("process", "UNCLIP_PROCESS_ID"),
    ):
        if fields.get(field) is None:
            raise UserError(f"{variable} is not set, and {fields['found_by']} does not tell it")
    cluster = Cluster(**fields)
    _check(cluster)
    return cluster if cluster.processes > 1 else None


def _check(cluster: Cluster) -> None:
    host, colon, port = cluster.coordinator.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise UserError(f"UNCLIP_COORDINATOR={cluster.coordinator!r} is not HOST:PORT")
    if not 0 <= cluster.process < cluster.processes:
        raise UserError(
            f"UNCLIP_PROCESS_ID={cluster.process}: with UNCLIP_NUM_PROCESSES={cluster.processes} "
            f"processes are numbered 0 to {cluster.processes - 1}"
        )
    if cluster.hosts and len(cluster.hosts) != cluster.processes:
        raise UserError(f"UNCLIP_HOSTS names {len(cluster.hosts)} of {cluster.processes} processes")


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise UserError(f"{name}={text!r} is not a number")
    return int(text)


def _port(job: str) -> int:
    digits = "".join(c for c in job if c.isdigit()) or "0"
    return _PORTS[0] + int(digits) % _PORTS[1]


def _slurm(env: Mapping[str, str], hostnames: Callable[[str], list[str]]) -> dict | None:
    """Only inside `srun`: in the batch script itself a single process runs."""
    if "SLURM_STEP_NODELIST" not in env or "SLURM_PROCID" not in env:
        return None
    processes = _number(env, "SLURM_STEP_NUM_TASKS")
    if processes in (None, 1):
        return None
    nodes = hostnames(env["SLURM_STEP_NODELIST"])
    attempt = env.get("SLURM_RESTART_COUNT", "0")  # a fresh port for every attempt
    fields = {
        "found_by": "SLURM",
        "coordinator": f"{nodes[0]}:{_port(str(int(env['SLURM_JOB_ID']) + int(attempt)))}",
        "processes": processes,
        "process": _number(env, "SLURM_PROCID"),
    }
    if processes == len(nodes):
        fields["hosts"] = tuple(nodes)
    elif len(env.get("CUDA_VISIBLE_DEVICES", "").split(",")) > 1:
        fields["local_device"] = _number(env, "SLURM_LOCALID")
    return fields


def _open_mpi(env: Mapping[str, str]) -> dict | None:
    if "OMPI_COMM_WORLD_RANK" not in env:
        return None
    fields: dict[str, str | int | None] = {
        "found_by": "Open MPI",
        "processes": _number(env, "OMPI_COMM_WORLD_SIZE"),
        "process": _number(env, "OMPI_COMM_WORLD_RANK"),
    }
    uri = env.get("OMPI_MCA_orte_hnp_uri", "")  # Open MPI 4: '1531576320.0;tcp://10.96.0.1,…:34911'
    if "tcp://" in uri:
        job, _, addresses = uri.partition(";")
        host = addresses.split("tcp://")[1].split(",")[0].split(":")[0]
        fields["coordinator"] = f"{host}:{_port(job.split('.')[0])}"
    if len(env.get("CUDA_VISIBLE_DEVICES", "").split(",")) > 1:
        fields["local_device"] = _number(env, "OMPI_COMM_WORLD_LOCAL_RANK")
    return fields


def _tpu(env: Mapping[str, str]) -> dict | None:
    hosts = [name for name in env.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    worker = _number(env, "TPU_WORKER_ID")
    slices = _number(env, "MEGASCALE_NUM_SLICES") or 1
    if worker is None or len(hosts) * slices < 2:
        return None
    leader = env.get("MEGASCALE_COORDINATOR_ADDRESS", hosts[0]).split(":")[0]
    return {
        "found_by": "TPU",
        "coordinator": f"{leader}:{TPU_PORT}",
        "processes": slices * len(hosts),
        "process": (_number(env, "MEGASCALE_SLICE_ID") or 0) * len(hosts) + worker,
        **({"hosts": tuple(hosts)} if slices == 1 else {}),
    }


def _kubernetes(env: Mapping[str, str]) -> dict | None:
    if "KUBERNETES_SERVICE_HOST" not in env or "JOB_COMPLETION_INDEX" not in env:
        return None
    if "UNCLIP_COORDINATOR" not in env and "UNCLIP_NUM_PROCESSES" not in env:
        return None  # an indexed job of single processes, such as a sweep
    return {"found_by": "Kubernetes", "process": _number(env, "JOB_COMPLETION_INDEX")}
