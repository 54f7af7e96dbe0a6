"""The request for a TPU, against what Google's own command line sends for the same wishes."""

import http.server
import json
import os
import shutil
import subprocess
import threading
import urllib.parse

import pytest

from unclip_jax.launch import gcp_request
from unclip_jax.launch.spec import RunSpec, Tpu

pytestmark = [
    pytest.mark.launch,
    pytest.mark.core,
    pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud"),
]


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers every POST with an operation that is done, and keeps what was posted."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.path, body))
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        raw = json.dumps({"name": "projects/p/locations/z/operations/1", "done": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def gcloud(tmp_path):
    """`gcloud(…)` returns (path, query, body) of what the command posts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.posted = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **os.environ,
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": f"http://127.0.0.1:{server.server_port}/",
    }

    def run(*words):
        argv = ["gcloud", "compute", "tpus", *words, "--zone", "z", "--async"]
        ran = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90)
        assert server.posted, ran.stderr
        path, body = server.posted.pop()
        parts = urllib.parse.urlparse(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        return parts.path, {k: v for k, v in query.items() if k not in ("alt", "$alt")}, body

    yield run
    server.shutdown()
    server.server_close()


def spec(tmp_path, **settings):
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me\n")
    return RunSpec(
        name="run",
        id="1a",
        backend="gcp-tpu",
        command=("true",),
        tpu=Tpu(
            project="p",
            zone="z",
            accelerator="v5litepod-16",
            runtime="v2-alpha-tpuv5-lite",
            identity=str(tmp_path / "key"),
            **settings,
        ),
    )


def ours(spec):
    address, body = gcp_request.request(spec)
    parts = urllib.parse.urlparse(f"/v2/{address}")
    return parts.path, dict(urllib.parse.parse_qsl(parts.query)), body


NODE = (
    *("--accelerator-type", "v5litepod-16", "--runtime-version", "v2-alpha-tpuv5-lite"),
    *("--metadata", "ssh-keys=unclip:ssh-ed25519 AAAA me,enable-guest-attributes=TRUE"),
    *("--labels", "unclip-run=run,unclip-id=1a"),
)


def normal(value):
    """Without what gcloud writes out of its own: settings that are off."""
    if not isinstance(value, dict):
        return value
    inner = {key: normal(item) for key, item in value.items()}
    return {key: item for key, item in inner.items() if item not in ({}, None, False, "")}


@pytest.mark.parametrize(
    ("settings", "flags"),
    [({"spot": True}, ["--spot"]), ({"reserved": True}, ["--reserved"]), ({}, [])],
)
def test_a_queued_resource_is_asked_for_as_gcloud_does(gcloud, tmp_path, settings, flags):
    duration = ["--valid-until-duration", "86400s"]
    theirs = gcloud(
        "queued-resources", "create", "run-1a", "--node-id", "run-1a", *NODE, *flags, *duration
    )
    mine = ours(spec(tmp_path, **settings))
    assert mine[:2] == theirs[:2]
    tpu_v2 = pytest.importorskip("google.cloud.tpu_v2")
    tpu_v2.QueuedResource.from_json(json.dumps(mine[2]))  # the client's own strict reading
    their_node = theirs[2]["tpu"]["nodeSpec"][0].pop("node")
    my_node = mine[2]["tpu"]["nodeSpec"][0].pop("node")
    assert normal(my_node) == normal(their_node)
    assert mine[2] == theirs[2]


@pytest.mark.parametrize(("settings", "flags"), [({"spot": True}, ["--spot"]), ({}, [])])
def test_a_node_is_asked_for_as_gcloud_does(gcloud, tmp_path, settings, flags):
    words = [word.replace("--runtime-version", "--version") for word in NODE]
    theirs = gcloud("tpu-vm", "create", "run-1a", *words, *flags)
    mine = ours(spec(tmp_path, queued=False, **settings))
    assert mine[:2] == theirs[:2]
    assert normal(mine[2]) == normal(theirs[2])
