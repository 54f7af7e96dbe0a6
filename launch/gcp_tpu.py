"""Cloud TPUs: TPU VMs, directly or by way of a queued resource; then SSH, as on any other hosts.

Every attempt begins by looking at what there is, and one table says what to do about it. A queued
resource that was suspended (its spot machines were taken) never comes back: it is deleted and asked
for again. Requests are written as the API's own JSON, so that `--dry-run` shows just what is sent.
"""

import asyncio
import enum
import json
import math
import pathlib
import re
import time
from typing import Any

from unclip_jax.errors import UserError

from .attempt import Show
from .dry_run import commands_on
from .hosts import Connection, HostLost
from .record import Record
from .spec import Host, RunSpec, Tpu
from .ssh import SshConnection

POLL_SECONDS = 10.0
_API = "https://tpu.googleapis.com/v2"


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


def hosts_of(accelerator: str) -> int:
    """How many hosts an accelerator type has, such as 4 for v5litepod-16."""
    match = re.fullmatch(r"(v\d\w*?)-(\d+)", accelerator)
    if not match:
        raise UserError(f"tpu.accelerator={accelerator!r}: write a type such as v5litepod-16")
    kind, size = match.group(1), int(match.group(2))
    if kind in ("v5litepod", "v6e"):  # the number counts chips, of which a host has 4, or 1 to 8
        return 1 if size <= 8 else math.ceil(size / 4)
    return max(1, size // 8)  # cores, two a chip, four chips a host


def node_id(spec: RunSpec) -> str:
    """The name of the TPU, and of its queued resource."""
    return f"{spec.name.replace('_', '-').replace('.', '-')}-{spec.id}"


def parent(spec: RunSpec) -> str:
    """Where it lives."""
    settings = spec.tpu or Tpu()
    return f"projects/{settings.project}/locations/{settings.zone}"


def request(spec: RunSpec) -> tuple[str, dict[str, Any]]:
    """(address, body) of the request that asks for the TPU."""
    settings = spec.tpu or Tpu()
    node: dict[str, Any] = {
        "acceleratorType": settings.accelerator,
        "runtimeVersion": settings.runtime,
        "networkConfig": {
            "network": settings.network,
            "enableExternalIps": settings.external_ips,
        },
        "labels": {"unclip-run": spec.name.replace(".", "-"), "unclip-id": spec.id},
        "metadata": {
            "ssh-keys": f"{settings.user}:{_public_key(settings)}",
            "enable-guest-attributes": "TRUE",
        },
    }
    if settings.service_account:
        node["serviceAccount"] = {"email": settings.service_account}
    if not settings.queued:
        if settings.spot or settings.reserved:
            node["schedulingConfig"] = {"spot" if settings.spot else "reserved": True}
        return f"{parent(spec)}/nodes?nodeId={node_id(spec)}", node
    body: dict[str, Any] = {
        "tpu": {"nodeSpec": [{"parent": parent(spec), "nodeId": node_id(spec), "node": node}]},
        "queueingPolicy": {"validUntilDuration": f"{60 * settings.deadline_minutes:.0f}s"},
    }
    if settings.spot:
        body["spot"] = {}
    elif settings.reserved:
        body["reservationName"] = f"{parent(spec)}/reservations/-"  # any that fits
    return f"{parent(spec)}/queuedResources?queuedResourceId={node_id(spec)}", body


def plan(spec: RunSpec, packed: bytes) -> str:
    """What `--dry-run` prints: the request, and what is run once its hosts have addresses."""
    address, body = request(spec)
    hosts = tuple(
        Host(name=f"worker-{i}", address=f"(address of worker {i})")
        for i in range(hosts_of((spec.tpu or Tpu()).accelerator))
    )
    head = f"# POST {_API}/{address}\n{json.dumps(body, indent=1)}\n\n"
    return head + commands_on(spec, hosts, packed)


def check(spec: RunSpec) -> None:
    """Raises `UserError` for what can't be."""
    settings = spec.tpu or Tpu()
    for name in ("project", "zone", "accelerator", "runtime"):
        if not getattr(settings, name):
            raise UserError(f"--on gcp-tpu needs --option tpu.{name}=…")
    if settings.spot and settings.reserved:
        raise UserError("tpu.spot and tpu.reserved: one of them")
    hosts = hosts_of(settings.accelerator)
    if spec.processes != hosts:
        raise UserError(
            f"--processes {spec.processes}: {settings.accelerator} has {hosts} hosts, each of "
            f"which runs one: leave it out, or give {hosts}"
        )


def _public_key(settings: Tpu) -> str:
    path = pathlib.Path(settings.identity + ".pub").expanduser()
    if settings.identity and path.is_file():
        return path.read_text().strip()
    return f"(public key beside {settings.identity or 'tpu.identity'})"


class TpuPlace:
    """A TPU that is asked for when it is needed and given back at the end."""

    rented = True

    def __init__(self, spec: RunSpec, client: Any = None):
        self._spec, self._settings = spec, spec.tpu or Tpu()
        self._client = client
        self._known_hosts = ""

    async def hosts(self, record: Record, show: Show) -> tuple[Host, ...]:
        """The TPU's hosts; waits for capacity up to the deadline, and asks again after a loss."""
        self._known_hosts = str(record.folder / "known_hosts")
        deadline, said = time.monotonic() + 60 * self._settings.deadline_minutes, ""
        while True:
            resource, node = await asyncio.to_thread(self._look)
            action = next_action(self._settings.queued, resource, node and node.state.name)
            state = f"{resource or 'no resource'}, {node.state.name if node else 'no node'}"
            if f"{state}: {action.value}" != said:
                said = f"{state}: {action.value}"
                show(f"launch: tpu {node_id(self._spec)}: {said}")
            if action is Action.READY:
                return await asyncio.to_thread(self._addresses, node)
            if action is Action.FAIL:
                raise UserError(f"the request for {node_id(self._spec)} failed: see its state in "
                                "the console; `unclip launch gc` removes it")  # fmt: skip
            if action is Action.CREATE:
                await asyncio.to_thread(self._create)
            if action is Action.DELETE:
                await asyncio.to_thread(self._delete)
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
        return SshConnection(host, self._known_hosts, self._settings.identity)

    async def release(self, record: Record, show: Show) -> None:
        """Deletes the TPU and its queued resource, if they are there."""
        resource, node = await asyncio.to_thread(self._look)
        if resource is None and node is None:
            return
        show(f"launch: tpu {node_id(self._spec)}: giving it back")
        await asyncio.to_thread(self._delete)
        while any(await asyncio.to_thread(self._look)):
            await asyncio.sleep(POLL_SECONDS)

    def _api(self) -> Any:
        if self._client is None:
            try:
                from google.cloud import tpu_v2
            except ImportError:
                raise UserError(
                    "--on gcp-tpu needs google-cloud-tpu: pip install 'unclip_jax[gcp]'"
                ) from None
            self._client = tpu_v2.TpuClient()
        return self._client

    def _look(self) -> tuple[str | None, Any]:
        """(state of the queued resource, node); None for what is not there."""
        name = node_id(self._spec)
        resource = None
        if self._settings.queued:
            found = self._get("get_queued_resource", f"{parent(self._spec)}/queuedResources/{name}")
            resource = found and found.state.state.name
        return resource, self._get("get_node", f"{parent(self._spec)}/nodes/{name}")

    def _get(self, method: str, name: str) -> Any:
        from google.api_core import exceptions

        try:
            return getattr(self._api(), method)(name=name)
        except exceptions.NotFound:
            return None
        except (exceptions.Forbidden, exceptions.Unauthenticated) as error:
            raise UserError(f"Google Cloud refuses: {error.message}") from None
        except exceptions.GoogleAPICallError as error:
            raise HostLost(f"Google Cloud: {error.message}") from None

    def _create(self) -> None:
        from google.api_core import exceptions
        from google.cloud import tpu_v2

        if "(" in _public_key(self._settings):
            raise UserError(
                "tpu.identity: give the file of a private key with its .pub beside it, as "
                "`ssh-keygen -t ed25519 -f KEY` makes them"
            )
        _, body = request(self._spec)
        text, name = json.dumps(body), node_id(self._spec)
        try:
            if self._settings.queued:
                self._api().create_queued_resource(
                    parent=parent(self._spec),
                    queued_resource_id=name,
                    queued_resource=tpu_v2.QueuedResource.from_json(text),
                )
            else:
                self._api().create_node(
                    parent=parent(self._spec), node_id=name, node=tpu_v2.Node.from_json(text)
                )
        except exceptions.AlreadyExists:
            return  # an earlier request of ours got through
        except exceptions.GoogleAPICallError as error:
            raise UserError(f"Google Cloud refuses the request: {error.message}") from None

    def _delete(self) -> None:
        from google.api_core import exceptions
        from google.cloud import tpu_v2

        name = node_id(self._spec)
        try:
            if self._settings.queued:
                self._api().delete_queued_resource(
                    request=tpu_v2.DeleteQueuedResourceRequest(
                        name=f"{parent(self._spec)}/queuedResources/{name}", force=True
                    )
                )
            else:
                self._api().delete_node(name=f"{parent(self._spec)}/nodes/{name}")
        except exceptions.NotFound:
            return
        except exceptions.GoogleAPICallError as error:
            raise HostLost(f"Google Cloud: {error.message}") from None

    def _addresses(self, node: Any) -> tuple[Host, ...]:
        """The hosts of a node that is ready; their keys go into known_hosts."""
        settings, hosts, known = self._settings, [], []
        attributes = self._api().get_guest_attributes(
            request={"name": node.name, "query_path": "hostkeys/"}
        )
        for i, endpoint in enumerate(node.network_endpoints):
            inside = endpoint.ip_address
            login = endpoint.access_config.external_ip if settings.external_ips else inside
            hosts.append(Host(name=f"worker-{i}", address=inside, login=login, user=settings.user))
            keys = attributes.guest_attributes[i].query_value.items
            known += [f"{login} {item.key} {item.value}" for item in keys]
        if not known:
            raise HostLost("the hosts have not published their keys yet")
        pathlib.Path(self._known_hosts).write_text("\n".join(known) + "\n")
        return tuple(hosts)
