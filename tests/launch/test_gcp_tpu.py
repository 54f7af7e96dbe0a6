"""Cloud TPUs: the table of states, and the whole way against a fake of Google's API on loopback.

The fake is ours: it proves that our requests are well formed and that our reactions are right, not
how Google's service behaves.
"""

import asyncio
import dataclasses
import json
import threading
from concurrent import futures

import pytest

from unclip_jax.errors import UserError
from unclip_jax.launch import gcp_tpu
from unclip_jax.launch.gcp_request import hosts_of, node_id, request
from unclip_jax.launch.gcp_tpu import Action, TpuPlace, next_action
from unclip_jax.launch.hosts import HostLost
from unclip_jax.launch.record import Record
from unclip_jax.launch.spec import RunSpec, Tpu


@pytest.mark.parametrize(
    ("resource", "node", "action"),
    [
        (None, None, Action.CREATE),
        ("ACCEPTED", None, Action.WAIT),
        ("WAITING_FOR_RESOURCES", None, Action.WAIT),
        ("PROVISIONING", "CREATING", Action.WAIT),
        ("ACTIVE", "CREATING", Action.WAIT),
        ("ACTIVE", "READY", Action.READY),
        ("ACTIVE", "PREEMPTED", Action.DELETE),
        ("ACTIVE", "TERMINATED", Action.DELETE),
        ("ACTIVE", None, Action.DELETE),
        ("SUSPENDING", "PREEMPTED", Action.WAIT),
        ("SUSPENDED", None, Action.DELETE),
        ("DELETING", None, Action.WAIT),
        ("FAILED", None, Action.FAIL),
        ("SOMETHING_NEW", None, Action.WAIT),
    ],
)
def test_what_to_do_about_a_queued_resource(resource, node, action):
    assert next_action(True, resource, node) is action


@pytest.mark.parametrize(
    ("node", "action"),
    [
        (None, Action.CREATE),
        ("CREATING", Action.WAIT),
        ("READY", Action.READY),
        ("REPAIRING", Action.WAIT),
        ("PREEMPTED", Action.DELETE),
        ("STOPPED", Action.DELETE),
        ("DELETING", Action.WAIT),
    ],
)
def test_what_to_do_about_a_node_of_its_own(node, action):
    assert next_action(False, None, node) is action


@pytest.mark.parametrize(
    ("accelerator", "hosts"),
    [
        ("v2-8", 1),
        ("v3-32", 4),
        ("v4-8", 1),
        ("v4-32", 4),
        ("v5p-8", 1),
        ("v5p-128", 16),
        ("v5litepod-1", 1),
        ("v5litepod-8", 1),
        ("v5litepod-16", 4),
        ("v5litepod-256", 64),
        ("v6e-16", 4),
    ],
)
def test_hosts_of_accelerators(accelerator, hosts):
    """As in Google's tables of TPU configurations."""
    assert hosts_of(accelerator) == hosts


def test_accelerators_that_do_not_exist():
    with pytest.raises(UserError, match="v5litepod-16"):
        hosts_of("a100")


class FakeTpuApi:
    """Queued resources and nodes whose states a script steps through, one at each look."""

    def __init__(self, tpu_v2, empty, operations):
        self.tpu_v2, self.empty, self.operations = tpu_v2, empty, operations
        self.states, self.created, self.deleted = [], [], 0
        self.resource = self.node = None

    def advance(self):
        if self.resource is not None and self.states:
            resource, node = self.states.pop(0)
            self.resource.state.state = resource
            self.node = None
            if node:
                spec = self.resource.tpu.node_spec[0]
                self.node = self.tpu_v2.Node(spec.node)
                self.node.name = f"{spec.parent}/nodes/{spec.node_id}"
                self.node.state = node
                self.node.network_endpoints = [
                    self.tpu_v2.NetworkEndpoint(
                        ip_address=f"10.0.0.{i}",
                        access_config=self.tpu_v2.AccessConfig(external_ip=f"34.0.0.{i}"),
                    )
                    for i in (1, 2)
                ]

    def create(self, request, context):
        if self.resource is not None:
            context.abort(self.grpc.StatusCode.ALREADY_EXISTS, "it exists")
        self.created.append(request)
        self.resource = request.queued_resource
        self.resource.state.state = "ACCEPTED"
        return self.operations.Operation(name="operations/1", done=False)

    def delete(self, request, context):
        assert request.force
        self.resource = self.node = None
        self.states = self.after_delete
        self.after_delete = []
        self.deleted += 1
        return self.operations.Operation(name="operations/2", done=False)

    def get(self, request, context):
        self.advance()
        if self.resource is None:
            context.abort(self.grpc.StatusCode.NOT_FOUND, "no such resource")
        return self.resource

    def get_node(self, request, context):
        if self.node is None:
            context.abort(self.grpc.StatusCode.NOT_FOUND, "no such node")
        return self.node

    def attributes(self, request, context):
        entries = [
            self.tpu_v2.GuestAttributes(
                query_value={"items": [{"key": "ssh-ed25519", "value": f"KEY{i}"}]}
            )
            for i in (1, 2)
        ]
        return self.tpu_v2.GetGuestAttributesResponse(guest_attributes=entries)


@pytest.fixture
def api():
    """(fake, client that talks to it by gRPC)."""
    grpc = pytest.importorskip("grpc")
    tpu_v2 = pytest.importorskip("google.cloud.tpu_v2")
    from google.cloud.tpu_v2.services.tpu.transports import TpuGrpcTransport
    from google.longrunning import operations_pb2
    from google.protobuf import empty_pb2

    fake = FakeTpuApi(tpu_v2, empty_pb2, operations_pb2)
    fake.grpc, fake.after_delete = grpc, []
    requests = {
        "CreateQueuedResource": (fake.create, tpu_v2.CreateQueuedResourceRequest),
        "DeleteQueuedResource": (fake.delete, tpu_v2.DeleteQueuedResourceRequest),
        "GetQueuedResource": (fake.get, tpu_v2.GetQueuedResourceRequest),
        "GetNode": (fake.get_node, tpu_v2.GetNodeRequest),
        "GetGuestAttributes": (fake.attributes, tpu_v2.GetGuestAttributesRequest),
    }

    def to_bytes(message):
        is_plain = hasattr(message, "SerializeToString")
        return message.SerializeToString() if is_plain else type(message).serialize(message)

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            function, request_deserializer=kind.deserialize, response_serializer=to_bytes
        )
        for name, (function, kind) in requests.items()
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = grpc.method_handlers_generic_handler("google.cloud.tpu.v2.Tpu", handlers)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield fake, tpu_v2.TpuClient(transport=TpuGrpcTransport(channel=channel))
    channel.close()
    server.stop(0).wait()


@pytest.fixture
def place(api, tmp_path, monkeypatch):
    """(fake, a place that asks it, a record, what was said)."""
    fake, client = api
    monkeypatch.setattr(gcp_tpu, "POLL_SECONDS", 0.01)
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me\n")
    spec = RunSpec(
        name="run",
        id="0a1b",
        backend="gcp-tpu",
        command=("true",),
        processes=2,
        tpu=Tpu(
            project="p",
            zone="z",
            accelerator="v5p-16",
            runtime="v2-alpha-tpuv5",
            spot=True,
            identity=str(tmp_path / "key"),
        ),
    )
    record = Record(tmp_path / "home", "run")
    record.create(spec)
    return fake, TpuPlace(spec, client), record, []


WAY = [("WAITING_FOR_RESOURCES", ""), ("PROVISIONING", "CREATING"), ("ACTIVE", "READY")]


@pytest.mark.core
@pytest.mark.launch
class TestAgainstTheFake:
    """The state machine, over gRPC."""

    def hosts(self, place):
        _, tpu, record, said = place
        return asyncio.run(asyncio.wait_for(tpu.hosts(record, said.append), 20))

    def test_a_spot_tpu_is_asked_for_and_its_hosts_are_known(self, place):
        fake, _, record, _ = place
        fake.states = list(WAY)
        hosts = self.hosts(place)
        assert [(h.address, h.login, h.user) for h in hosts] == [
            ("10.0.0.1", "34.0.0.1", "unclip"),
            ("10.0.0.2", "34.0.0.2", "unclip"),
        ]
        known = (record.folder / "known_hosts").read_text()
        assert known == "34.0.0.1 ssh-ed25519 KEY1\n34.0.0.2 ssh-ed25519 KEY2\n"
        request = fake.created[0]
        assert request.parent == "projects/p/locations/z"
        assert request.queued_resource_id == node_id(record.spec) == "run-0a1b"
        assert "spot" in request.queued_resource
        node = request.queued_resource.tpu.node_spec[0].node
        assert node.accelerator_type == "v5p-16"
        assert node.labels == {"unclip-run": "run", "unclip-id": "0a1b"}
        assert node.metadata["ssh-keys"] == "unclip:ssh-ed25519 AAAA me"
        assert request.queued_resource.queueing_policy.valid_until_duration.total_seconds() == 86400

    def test_what_is_there_is_taken_and_not_asked_for_again(self, place):
        fake = place[0]
        fake.states = list(WAY)
        self.hosts(place)
        self.hosts(place)  # as a launcher that was killed would
        assert len(fake.created) == 1

    @pytest.mark.parametrize("lost", [("SUSPENDED", ""), ("ACTIVE", "PREEMPTED")])
    def test_a_tpu_that_was_taken_is_deleted_and_asked_for_again(self, place, lost):
        fake = place[0]
        fake.states = list(WAY)
        self.hosts(place)
        fake.states, fake.after_delete = [("SUSPENDING", "PREEMPTED"), lost], list(WAY)
        assert len(self.hosts(place)) == 2
        assert (len(fake.created), fake.deleted) == (2, 1)

    def test_a_request_that_fails_ends_the_run(self, place):
        place[0].states = [("FAILED", "")]
        with pytest.raises(UserError, match="failed"):
            self.hosts(place)

    def test_waiting_can_be_stopped(self, place):
        fake, _, record, _ = place
        fake.states = []
        threading.Timer(0.3, record.ask_to_stop, [0.0]).start()
        with pytest.raises(HostLost, match="stopped"):
            self.hosts(place)

    def test_no_capacity_has_a_deadline(self, place):
        fake, tpu, record, said = place
        settings = dataclasses.replace(record.spec.tpu, deadline_minutes=0.005)
        short = TpuPlace(dataclasses.replace(record.spec, tpu=settings), tpu._api._client)
        with pytest.raises(UserError, match="no capacity"):
            self.hosts((fake, short, record, said))

    def test_it_is_given_back(self, place):
        fake, tpu, record, said = place
        fake.states = list(WAY)
        self.hosts(place)
        asyncio.run(asyncio.wait_for(tpu.release(record, said.append), 20))
        assert fake.resource is None
        asyncio.run(tpu.release(record, said.append))  # twice does no harm
        assert fake.deleted == 1

    def test_the_dry_run_shows_the_body_that_is_sent(self, place):
        fake, _, record, _ = place
        fake.states = list(WAY)
        self.hosts(place)
        _, body = request(record.spec)
        sent = fake.tpu_v2.QueuedResource.from_json(json.dumps(body))
        fake.created[0].queued_resource.state = None
        assert fake.created[0].queued_resource.tpu == sent.tpu
