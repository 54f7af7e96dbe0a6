"""The calls to Cloud TPU's API that a run needs, with its errors in our words.

What Google refuses is the user's to mend (`UserError`); what fails otherwise may pass (`HostLost`).
"""

import json
import pathlib
from typing import Any

from unclip_jax.errors import UserError

from .gcp_request import node_id, parent, public_key, request
from .hosts import HostLost
from .spec import Host, RunSpec, Tpu


class TpuApi:
    """One run's TPU: its queued resource, if it is asked for so, and its node."""

    def __init__(self, spec: RunSpec, client: Any = None):
        self._spec, self._settings = spec, spec.tpu or Tpu()
        self._client = client

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

    def look(self) -> tuple[str | None, Any]:
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

    def create(self) -> None:
        """Asks for it; does nothing if an earlier request got through."""
        from google.api_core import exceptions
        from google.cloud import tpu_v2

        if "(" in public_key(self._settings):
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

    def delete(self) -> None:
        """Gives it back, if it is there."""
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

    def hosts(self, node: Any, known_hosts: pathlib.Path) -> tuple[Host, ...]:
        """The hosts of a node that is ready; the keys they have published go into `known_hosts`."""
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
        known_hosts.write_text("\n".join(known) + "\n")
        return tuple(hosts)
