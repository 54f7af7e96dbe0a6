"""The part of a Kubernetes API server that kubectl asks when it handles JobSets, on loopback."""

import http.server
import json
import threading
import urllib.parse
from typing import ClassVar

import pytest
import yaml


class FakeCluster(http.server.BaseHTTPRequestHandler):
    """`sets` are those that were created; `pods` and `log` are what a test says there is."""

    sets: ClassVar[dict] = {}
    pods: ClassVar[list] = []
    log = ""
    GROUP = "jobset.x-k8s.io/v1alpha2"

    def log_message(self, *args):
        pass

    def answer(self, value, code=200):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        kind = "text/plain" if isinstance(value, bytes) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def not_found(self):
        self.answer(
            {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
             "message": "not found", "code": 404}, 404,
        )  # fmt: skip

    def do_GET(self):
        path = urllib.parse.urlparse(self.path).path
        if path == "/api":
            return self.answer({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            version = {"groupVersion": self.GROUP, "version": "v1alpha2"}
            group = {"name": "jobset.x-k8s.io", "versions": [version], "preferredVersion": version}
            return self.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
        if path in ("/api/v1", f"/apis/{self.GROUP}"):
            one = ("pods", "Pod") if path == "/api/v1" else ("jobsets", "JobSet")
            verbs = ["get", "list", "create", "delete", "patch"]
            resources = [
                {"name": one[0], "singularName": one[1].lower(), "namespaced": True,
                 "kind": one[1], "verbs": verbs}
            ]  # fmt: skip
            if path == "/api/v1":
                resources.append({**resources[0], "name": "pods/log"})
            return self.answer(
                {
                    "kind": "APIResourceList",
                    "groupVersion": path.split("/", 2)[2],
                    "resources": resources,
                }
            )
        if path == "/openapi/v3":
            return self.answer(
                {"paths": {f"apis/{self.GROUP}": {"serverRelativeURL": "/openapi/v3/jobset"}}}
            )
        if path == "/openapi/v3/jobset":  # says that the server itself validates fields
            kind = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet"}
            patch = {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": kind,
                "responses": {},
            }
            route = f"/apis/{self.GROUP}/namespaces/{{namespace}}/jobsets/{{name}}"
            info = {"title": "fake", "version": "1"}
            return self.answer(
                {"openapi": "3.0.0", "info": info, "paths": {route: {"patch": patch}}}
            )
        if path.endswith("/log"):
            return self.answer(type(self).log.encode())
        if "/jobsets/" in path:
            found = self.sets.get(path.rsplit("/", 1)[1])
            return self.answer(found) if found else self.not_found()
        if path.endswith("/pods"):
            return self.answer(
                {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods}
            )
        return self.not_found()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sets[body["metadata"]["name"]] = body
        self.answer(body, 201)

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.sets.pop(urllib.parse.urlparse(self.path).path.rsplit("/", 1)[1], None)
        self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})


@pytest.fixture
def kube(tmp_path, monkeypatch):
    """The fake, with kubectl set up for it."""
    FakeCluster.sets, FakeCluster.pods, FakeCluster.log = {}, [], ""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeCluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": address}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": ""}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps what it discovered there
    yield FakeCluster
    server.shutdown()
    server.server_close()
