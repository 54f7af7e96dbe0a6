"""Cloud TPUs: TPU VMs, directly or by way of a queued resource; then SSH, as on any other hosts.

Every attempt begins by looking at what there is, and one table says what to do about it. A queued
resource that was suspended (its spot machines were taken) never comes back: it is deleted and asked
for again.
"""

import asyncio
import enum
import pathlib
import time
from typing import Any

from unclip_jax.errors import UserError

from .attempt import Show
from .gcp_api import TpuApi
from .gcp_request import node_id
from .hosts import Connection, HostLost
from .record import Record
from .spec import Host, RunSpec, Tpu
from .ssh import SshConnection

POLL_SECONDS = 10.0


class Action(enum.Enum):
    """What to do next."""

    CREATE = "create"
    WAIT = "wait"
    DELETE = "delete"  # and create again
    READY = "ready"
    FAIL = "fail"


# A node that is on its way to READY; any other that is not READY is lost.
_NODE_COMES = {"CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING", "UNHIDING"}
_NODE_GOES = {"DELETING", "STOPPING"}
_QUEUED = {
    None: Action.CREATE,
    "CREATING": Action.WAIT,
    "ACCEPTED": Action.WAIT,
    "WAITING_FOR_RESOURCES": Action.WAIT,
    "PROVISIONING": Action.WAIT,
    "SUSPENDING": Action.WAIT,
    "DELETING": Action.WAIT,
    "SUSPENDED": Action.DELETE,
    "FAILED": Action.FAIL,
}


def next_action(queued: bool, resource: str | None, node: str | None) -> Action:
    """The next step from the states of the queued resource and of its node; None: not there."""
    if queued and resource != "ACTIVE":
        return _QUEUED.get(resource, Action.WAIT)
    if node is None:
        return Action.DELETE if queued else Action.CREATE
    if node == "READY":
        return Action.READY
    return Action.WAIT if node in _NODE_COMES | _NODE_GOES else Action.DELETE


class TpuPlace:
    """A TPU that is asked for when it is needed and given back at the end."""

    rented = True

    def __init__(self, spec: RunSpec, client: Any = None):
        self._spec, self._settings = spec, spec.tpu or Tpu()
        self._api = TpuApi(spec, client)
        self._known_hosts = pathlib.Path()

    async def hosts(self, record: Record, show: Show) -> tuple[Host, ...]:
        """The TPU's hosts; waits for capacity up to the deadline, and asks again after a loss."""
        self._known_hosts = record.folder / "known_hosts"
        deadline, said = time.monotonic() + 60 * self._settings.deadline_minutes, ""
        while True:
            resource, node = await asyncio.to_thread(self._api.look)
            action = next_action(self._settings.queued, resource, node and node.state.name)
            state = f"{resource or 'no resource'}, {node.state.name if node else 'no node'}"
            if f"{state}: {action.value}" != said:
                said = f"{state}: {action.value}"
                show(f"launch: tpu {node_id(self._spec)}: {said}")
            if action is Action.READY:
                return await asyncio.to_thread(self._api.hosts, node, self._known_hosts)
            if action is Action.FAIL:
                raise UserError(f"the request for {node_id(self._spec)} failed: see its state in "
                                "the console; `unclip launch gc` removes it")  # fmt: skip
            if action is Action.CREATE:
                await asyncio.to_thread(self._api.create)
            if action is Action.DELETE:
                await asyncio.to_thread(self._api.delete)
            if record.stop_request() is not None:
                raise HostLost("it was stopped while it waited for the TPU")
            if time.monotonic() > deadline:
                raise UserError(
                    f"no capacity within {self._settings.deadline_minutes:g} minutes "
                    "(tpu.deadline_minutes)"
                )
            await asyncio.sleep(POLL_SECONDS)

    def connect(self, host: Host) -> Connection:
        """An SSH connection that trusts the keys that the hosts have published."""
        return SshConnection(host, str(self._known_hosts), self._settings.identity)

    async def release(self, record: Record, show: Show) -> None:
        """Deletes the TPU and its queued resource, if they are there."""
        resource, node = await asyncio.to_thread(self._api.look)
        if resource is None and node is None:
            return
        show(f"launch: tpu {node_id(self._spec)}: giving it back")
        await asyncio.to_thread(self._api.delete)
        while any(await asyncio.to_thread(self._api.look)):
            await asyncio.sleep(POLL_SECONDS)
