"""What a run asks of Cloud TPU, as the API's own JSON: `--dry-run` shows just what is sent."""

import json
import math
import pathlib
import re
from typing import Any

from unclip_jax.errors import UserError

from .dry_run import commands_on
from .spec import Host, RunSpec, Tpu

_API = "https://tpu.googleapis.com/v2"


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
            "ssh-keys": f"{settings.user}:{public_key(settings)}",
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


def public_key(settings: Tpu) -> str:
    """What goes with the private key, or (in parentheses) what lacks."""
    path = pathlib.Path(settings.identity + ".pub").expanduser()
    if settings.identity and path.is_file():
        return path.read_text().strip()
    return f"(public key beside {settings.identity or 'tpu.identity'})"
