"""A fake of Google's TPU API (REST, on loopback) whose TPUs are hosts of `ssh_lab`.

It keeps queued resources and their nodes, and answers gcloud and Google's Python client alike. It
is ours: it shows that what we do fits together, not how Google's service behaves.
"""

import base64
import http.server
import json
import re
import threading
import urllib.parse


class TpuLab:
    """`state` of the node may be changed by a test; `created` and `deleted` count requests."""

    def __init__(self, lab):
        self.lab, self.node, self.state = lab, None, "READY"
        self.created = self.deleted = 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def gcloud(self, folder):
        """The environment in which gcloud asks here, without credentials."""
        return {
            "HOME": str(folder),  # where it keeps the hosts' keys
            "CLOUDSDK_CONFIG": str(folder),
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_PROJECT": "p",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": f"http://{self.address}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"http://{self.address}/compute/v1/",
        }

    def answer(self, method, path, body):
        """The answer's JSON, or None for 404."""
        if path.endswith("/compute/v1/projects/p"):
            mine = (self.lab.folder / "id.pub").read_text().strip()
            keys = {"key": "ssh-keys", "value": f"root:{mine}"}
            fingerprint = base64.b64encode(b"fingerprint").decode()
            metadata = {"fingerprint": fingerprint, "items": [keys]}
            return {"name": "p", "commonInstanceMetadata": metadata}
        if "/operations/" in path:
            return {"name": path.removeprefix("/v2/"), "done": True}
        if method == "POST" and path.endswith("/queuedResources"):
            asked = body["tpu"]["nodeSpec"][0]
            self.node = {**asked["node"], "name": f"{asked['parent']}/nodes/{asked['nodeId']}"}
            self.state, self.created = "READY", self.created + 1
            return self._operation()
        if self.node is None:
            return None
        if method == "DELETE":
            self.node, self.deleted = None, self.deleted + 1
            return self._operation()
        if path.endswith(":getGuestAttributes"):
            kind, key, *_ = (self.lab.folder / "hostkey.pub").read_text().split()
            items = [{"namespace": "hostkeys", "key": kind, "value": key}]
            return {"guestAttributes": [{"queryValue": {"items": items}} for _ in self.lab.names]}
        if "/queuedResources/" in path:
            name = re.sub("/nodes/", "/queuedResources/", self.node["name"])
            return {"name": name, "state": {"state": "ACTIVE"}}
        ends = [{"ipAddress": self.lab.address(name), "port": 8470} for name in self.lab.names]
        return {**self.node, "state": self.state, "networkEndpoints": ends}

    def _operation(self):
        return {"name": "projects/p/locations/z/operations/1", "done": False}


def _handler(tpus):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def _answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            found = tpus.answer(self.command, urllib.parse.urlparse(self.path).path, body)
            missing = {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
            raw = json.dumps(missing if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = _answer

    return Handler
