"""Several processes as one: joining them, one of them writing, and what each of them sees."""

import contextlib
import json
import os
import platform
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from unclip_jax.errors import MissingProcess, SharedError, UserError
from unclip_jax.parallel.cluster import Cluster, detect
from unclip_jax.parallel.roll_call import roll_call

_FACT_BYTES = 4096
_IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def join(facts: Mapping[str, Any], *, timeout: float, heartbeat: float) -> Cluster | None:
    """Joins the processes that the environment describes; before anything else uses jax.

    Args:
      facts: JSON values that must be equal on all processes, such as a hash of the config.
      timeout: seconds to wait for all to come.
      heartbeat: a process that is silent for so many seconds ends all others.

    Returns:
      The cluster; None for a process on its own.

    Raises:
      MissingProcess, UserError: which process is missing, or differs and in what.
    """
    if os.environ.get("UNCLIP_CLUSTER") == "jax":
        _exchange_in_order(os.environ)
        jax.distributed.initialize(
            initialization_timeout=max(1, int(timeout)),
            heartbeat_timeout_seconds=max(1, int(heartbeat)),
        )
        _compile_anew_on_cpus()
        return Cluster("JAX", "", jax.process_count(), jax.process_index())
    cluster = detect(os.environ)
    if cluster is None:
        return None
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    _exchange_in_order(os.environ)
    roll_call(cluster, {"host": socket.gethostname(), **_versions(), **facts}, timeout, bind)
    jax.distributed.initialize(
        cluster.coordinator,
        num_processes=cluster.processes,
        process_id=cluster.process,
        local_device_ids=None if cluster.local_device is None else [cluster.local_device],
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, int(timeout)),
        heartbeat_timeout_seconds=max(1, int(heartbeat)),
        coordinator_bind_address=bind or cluster.coordinator,
    )
    _compile_anew_on_cpus()
    return cluster


def _exchange_in_order(environment: MutableMapping[str, str]) -> None:
    """Has XLA run one collective of a program after the other on CPUs, before it reads its flags.

    Its scheduler for concurrency lets three processes and more meet in different collectives, which
    gloo ends by an abort ("collective mismatch"). Without it a U-Net's step takes 5 % longer, so a
    process on its own keeps it.
    """
    flags = environment.get("XLA_FLAGS", "")
    on_cpus = environment.get("JAX_PLATFORMS", "cpu").startswith("cpu")
    if on_cpus and _IN_ORDER.partition("=")[0] not in flags:
        environment["XLA_FLAGS"] = f"{flags} {_IN_ORDER}".strip()


def _compile_anew_on_cpus() -> None:
    """Takes no program from the persistent cache: for all that `_exchange_in_order` asks for, two
    processes of a CLIP that did were aborted in different collectives at every start (jax 0.10.2).
    """
    if jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)


def _versions() -> dict[str, str]:
    from unclip_jax import __version__

    return {
        "unclip_jax": __version__,
        "jax": jax.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "attempt": os.environ.get("UNCLIP_ATTEMPT", ""),
    }


@contextlib.contextmanager
def together(cluster: Cluster | None) -> Iterator[None]:
    """Ends this process at once where an error would otherwise leave the others waiting for it.

    JAX's own farewell at exit is a barrier, which a process that failed must not wait at. All wait
    there after an error that all have: the end of process 0 would abort those that are not so far.
    An error that comes of another process's end is told as that.
    """
    try:
        yield
    except SharedError:
        raise
    except Exception as error:
        if cluster is None:
            raise
        if _is_of_another(error):
            error = MissingProcess(
                f"another process of this run has ended, and {cluster.name(cluster.process)} with "
                f"it ({str(error).splitlines()[0][:200]}): see the logs of the others"
            )
        if isinstance(error, UserError):
            print(f"unclip: {error}", file=sys.stderr, flush=True)
            os._exit(error.exit_code)
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


def _is_of_another(error: Exception) -> bool:
    text = str(error)
    told = ("Gloo", "Connection closed by peer", "Connection reset by peer", "coordination service")
    return isinstance(error, jax.errors.JaxRuntimeError) and any(words in text for words in told)


def is_primary() -> bool:
    """Whether this is the process that writes what all share."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line once, not once per process."""
    if is_primary():
        print(line, file=sys.stderr, flush=True)


def gather(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts of every process, in their order, on every process; small JSON values only."""
    text = json.dumps(facts).encode()
    if len(text) > _FACT_BYTES:
        raise ValueError(f"{len(text)} bytes of facts exceed {_FACT_BYTES}")
    padded = np.frombuffer(text.ljust(_FACT_BYTES), np.uint8)
    rows = np.atleast_2d(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row)) for row in np.asarray(rows, np.uint8)]


def all_processes(ok: bool) -> bool:
    """Whether it is so on every process; all must ask together."""
    return bool(np.all(multihost_utils.process_allgather(np.array(ok, np.int32))))


def what_each_sees(cluster: Cluster | None, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gathers host and devices of every process, with `facts` that must be equal everywhere.

    Raises:
      UserError: a process that differs from process 0, by name.
    """
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    local = {
        "host": socket.gethostname(),
        "devices": f"{jax.local_device_count()} x {', '.join(kinds)}",
        "cores": os.cpu_count(),
    }
    everyone = gather({**local, **facts})
    for number, theirs in enumerate(everyone):
        for name in ("devices", *facts):
            if theirs[name] != everyone[0][name]:
                named = cluster.name(number) if cluster else f"process {number}"
                raise UserError(
                    f"{named} on {theirs['host']} has {name} {theirs[name]!r}, but process 0 on "
                    f"{everyone[0]['host']} has {everyone[0][name]!r}"
                )
    return everyone


def report(cluster: Cluster | None, everyone: Sequence[Mapping[str, Any]]) -> str:
    """The start-up report: a line for the run and, of several processes, one for each."""
    first = everyone[0]
    found = f", found by {cluster.found_by}" if cluster else ""
    shared = {k: v for k, v in first.items() if k not in ("host", "devices", "cores")}
    facts = "".join(f"; {name} {value}" for name, value in shared.items())
    count = f"{len(everyone)} process{'es' if len(everyone) > 1 else ''}{found}"
    lines = [f"{count}: {jax.device_count()} devices{facts}"]
    lines += [
        f"  process {number}: {seen['host']}, {seen['devices']}, {seen['cores']} cores"
        for number, seen in enumerate(everyone)
    ]
    return "\n".join(lines)
