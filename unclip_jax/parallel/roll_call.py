"""Are all processes there, and of one mind? Asked before JAX starts, so that an error has a name.

Process 0 listens at the coordinator's address and hears one line of JSON from each other process:
who it is and what it runs. It answers "ok" to all once all are there; or, as soon as something is
wrong or the time is over, the same error message to all that came. Then the port is left to JAX.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from unclip_jax.errors import MissingProcess, UserError
from unclip_jax.parallel.cluster import Cluster

_LATE_SECONDS = 2.0
_HELLO_SECONDS = 5.0  # for one line from a process that has connected
_REPLY_SECONDS = 15.0  # beyond the deadline, for process 0 to tell its verdict
_MAX_LINE = 65_536


def roll_call(cluster: Cluster, facts: Mapping[str, Any], timeout: float, bind: str | None) -> None:
    """Returns once all processes have said equal `facts`.

    Args:
      facts: JSON values; "host" is a name for messages, all others must be equal everywhere.
      timeout: seconds to wait.
      bind: HOST:PORT to listen at if it is not the coordinator's address.

    Raises:
      MissingProcess: names the processes that did not come.
      UserError: names the process that differs.
    """
    deadline = time.monotonic() + timeout
    hello = {"process": cluster.process, "processes": cluster.processes, **facts}
    if cluster.process == 0:
        _listen(cluster, hello, timeout, deadline, bind or cluster.coordinator)
    else:
        _report(cluster, hello, timeout, deadline)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _listen(
    cluster: Cluster, mine: dict[str, Any], timeout: float, deadline: float, bind: str
) -> None:
    try:
        server = socket.create_server(_address(bind), backlog=max(128, cluster.processes))
    except OSError as error:
        raise UserError(
            f"process 0 on {mine['host']} can't listen at {bind} ({error.strerror or error}): "
            "UNCLIP_COORDINATOR must be a free port of a host name or address of process 0"
        ) from None
    with contextlib.ExitStack() as open_sockets:
        open_sockets.enter_context(server)
        came: dict[int, dict[str, Any]] = {}
        heard: list[socket.socket] = []
        wrong: UserError | None = None
        while len(came) < cluster.processes - 1:
            connection = _accept(server, deadline)
            if connection is None:
                wrong = wrong or _missing(cluster, mine, came, timeout)
                break
            open_sockets.enter_context(connection)
            theirs = _hear(connection)
            if theirs is None:
                continue  # no process of ours: a port scanner, or an attempt that has ended
            if wrong is None:
                wrong = _difference(mine, theirs, came)
                if wrong:  # those on their way are to be told it too
                    deadline = min(deadline, time.monotonic() + _LATE_SECONDS)
            came.setdefault(theirs["process"], theirs)
            heard.append(connection)
        _tell(heard, wrong)
    if wrong is not None:
        raise wrong


def _accept(server: socket.socket, deadline: float) -> socket.socket | None:
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    server.settimeout(left)
    try:
        return server.accept()[0]
    except TimeoutError:
        return None


def _hear(connection: socket.socket) -> dict[str, Any] | None:
    connection.settimeout(_HELLO_SECONDS)
    try:
        with connection.makefile("rb") as stream:
            line = json.loads(stream.readline(_MAX_LINE))
    except (OSError, ValueError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("process"), int) else None


def _tell(connections: list[socket.socket], error: UserError | None) -> None:
    verdict = {"error": None} if error is None else {"error": str(error), "kind": error.exit_code}
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(verdict).encode() + b"\n")


def _missing(
    cluster: Cluster, mine: dict[str, Any], came: Mapping[int, dict[str, Any]], timeout: float
) -> UserError:
    names = [cluster.name(p) for p in range(1, cluster.processes) if p not in came]
    there = [f"process 0 on {mine['host']}"]
    there += [f"process {p} on {theirs['host']}" for p, theirs in sorted(came.items())]
    return MissingProcess(
        f"{_some(names)} of {cluster.processes} did not join within {timeout:g} s "
        f"(there: {_some(there)}): see the log of that host, and whether it reaches "
        f"{cluster.coordinator}"
    )


def _some(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _difference(
    mine: dict[str, Any], theirs: dict[str, Any], came: Mapping[int, dict[str, Any]]
) -> UserError | None:
    number = theirs["process"]
    who = f"process {number} on {theirs.get('host')}"
    other = came.get(number, mine if number == 0 else None)
    if other is not None:
        return UserError(
            f"two processes say that they are process {number}: on "
            f"{other['host']} and on {theirs.get('host')}"
        )
    for name, value in mine.items():
        if name not in ("process", "host") and theirs.get(name) != value:
            return UserError(
                f"{who} has {name} {theirs.get(name)!r}, but process 0 on {mine['host']} has "
                f"{value!r}: start all processes alike"
            )
    return None


def _report(cluster: Cluster, hello: dict[str, Any], timeout: float, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        try:
            verdict = _ask(cluster, hello, left)
        except (OSError, ValueError):
            time.sleep(min(0.2, left))  # process 0 is not there yet, or not any more
            continue
        if verdict["error"] is None:
            return
        kind = MissingProcess if verdict["kind"] == MissingProcess.exit_code else UserError
        raise kind(verdict["error"])
    raise MissingProcess(
        f"process 0 did not answer {cluster.name(cluster.process)} on {hello['host']} at "
        f"{cluster.coordinator} within {timeout:g} s: is it running, and is the port open?"
    )


def _ask(cluster: Cluster, hello: dict[str, Any], left: float) -> dict[str, Any]:
    address = _address(cluster.coordinator)
    with socket.create_connection(address, timeout=min(left, 10.0)) as connection:
        connection.sendall(json.dumps(hello).encode() + b"\n")
        connection.settimeout(left + _REPLY_SECONDS)
        with connection.makefile("rb") as stream:
            return json.loads(stream.readline(_MAX_LINE))
