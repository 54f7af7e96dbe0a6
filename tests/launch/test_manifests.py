"""The JobSet against strict schemas, and kubectl itself against a fake API server on loopback."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from typing import ClassVar

import pytest
import yaml

from unclip_jax.launch import jobset, skypilot
from unclip_jax.launch.exits import ExitClass
from unclip_jax.launch.spec import Gke, RunSpec, SkyPilot


def spec(**changes):
    settings = {
        "name": "prior.paper",
        "backend": "gke",
        "command": ("python", "-c", "print(1)"),
        "processes": 4,
        "env": ("A=b",),
        "secrets": ("WANDB_API_KEY",),
        "gke": Gke(
            image="image:1",
            queue="tpus",
            accelerator="tpu-v5-lite-podslice",
            topology="2x4",
            slices=2,
            secret="keys",
            service_account="trainer",
            priority="low",
        ),
    }
    return RunSpec(**{**settings, **changes})


def pod_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def job_of(manifest):
    """The one replicated job, as a Job of its own."""
    template = manifest["spec"]["replicatedJobs"][0]["template"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **template}


@pytest.mark.launch
def test_the_job_and_its_pods_are_strictly_valid():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(job_of(jobset.manifest(spec())), "1.34", strict=True)
    broken = jobset.manifest(spec())
    broken["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    with pytest.raises(Exception, match="backofLimit"):  # a schema that never says no is none
        kubernetes_validate.validate(job_of(broken), "1.34", strict=True)


@pytest.mark.launch
def test_the_jobset_has_no_field_that_jobset_does_not_know():
    models = pytest.importorskip("kubeflow_trainer_api.models")

    def known(manifest):
        """What JobSet's own generated model keeps: it drops fields that it does not know."""
        model = models.JobsetV1alpha2JobSet.from_dict(manifest)
        found = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
        limits = pod_of(found)["containers"][0]["resources"]["limits"]
        limits.update({key: value["actual_instance"] for key, value in limits.items()})
        return found

    manifest = jobset.manifest(spec())
    assert known(manifest) == manifest
    manifest["spec"]["failurePolicy"]["maxRestart"] = 3
    assert known(manifest) != manifest


def test_names_ports_and_numbers_fit_together():
    manifest = jobset.manifest(spec())
    name = manifest["metadata"]["name"]
    assert name == "prior-paper"
    job = manifest["spec"]["replicatedJobs"][0]
    pod = job["template"]["spec"]["template"]["spec"]
    env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    # JobSet names a pod SET-REPLICATEDJOB-JOBINDEX-PODINDEX, in the subdomain SET.
    assert env["UNCLIP_COORDINATOR"] == f"{name}-{job['name']}-0-0.{name}:8476"
    assert env["UNCLIP_NUM_PROCESSES"] == "4"
    assert job["replicas"] * job["template"]["spec"]["parallelism"] == 4
    assert env["WANDB_API_KEY"] is None


@pytest.mark.parametrize(("job", "pod", "number"), [(0, 0, "0"), (0, 1, "1"), (1, 0, "2")])
def test_processes_are_numbered_through_all_slices(job, pod, number):
    command = pod_of(jobset.manifest(spec()))["containers"][0]["command"]
    shown = [*command[:4], "printenv", "UNCLIP_PROCESS_ID"]
    env = {"SLICE_INDEX": str(job), "JOB_COMPLETION_INDEX": str(pod), "PATH": os.environ["PATH"]}
    assert subprocess.run(shown, env=env, capture_output=True, text=True).stdout.strip() == number


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({}, None),
        ({"restarts": 2}, None),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, None),
        ({"conditions": [{"type": "Completed", "status": "False"}]}, None),
        ({"conditions": [{"type": "Completed", "status": "True"}]}, ExitClass.DONE),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, ExitClass.CRASHED),
    ],
)
def test_a_set_is_judged_by_its_conditions(status, kind):
    assert jobset.judged({"status": status}).kind is kind


def test_the_task_of_skypilot_reads_its_environment(tmp_path):
    """Its `run` is run as SkyPilot would, with SkyPilot's variables."""
    found = skypilot.task(
        spec(
            backend="skypilot",
            command=("printenv", "UNCLIP_COORDINATOR", "UNCLIP_PROCESS_ID"),
            skypilot=SkyPilot(accelerators="H100:8", spot=True),
        )
    )
    env = {
        "PATH": os.environ["PATH"],
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
    }
    ran = subprocess.run(["bash", "-c", found["run"]], env=env, capture_output=True, text=True)
    assert ran.stdout.split() == ["10.0.0.1:8476", "1"]
    assert yaml.safe_load(skypilot.plan(spec(skypilot=SkyPilot(accelerators="H100:8")), b""))


class FakeCluster(http.server.BaseHTTPRequestHandler):
    """The part of a Kubernetes API server that kubectl asks when it handles JobSets."""

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
def cluster(tmp_path, monkeypatch):
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


@pytest.mark.launch
@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
class TestWithKubectl:
    """The whole launch, with the real kubectl."""

    started: ClassVar[list] = []

    @pytest.fixture(autouse=True)
    def end_what_was_started(self):
        yield
        while self.started:
            process = self.started.pop()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()

    def launch(self, tmp_path, *more):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "unclip_jax", "launch", "--on", "gke", "--name", "a"),
                *("--home", str(tmp_path / "home"), "--option", "gke.image=image:1", *more),
                *("--", "python", "-c", "print(1)"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def finish(self, process):
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def test_a_set_is_applied_followed_and_completes(self, cluster, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in cluster.sets)
        cluster.sets["a"]["status"] = {"conditions": [{"type": "Completed", "status": "True"}]}
        code, output = self.finish(process)
        assert code == 0, output

    def test_exit_code_2_ends_the_set(self, cluster, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in cluster.sets)
        ended = {"name": "unclip", "state": {"terminated": {"exitCode": 2}}}
        cluster.pods = [
            {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
             "status": {"containerStatuses": [ended]}}
        ]  # fmt: skip
        code, output = self.finish(process)
        assert code == 2, output
        assert cluster.sets == {}

    def test_stopping_deletes_the_set(self, cluster, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in cluster.sets)
        argv = (sys.executable, "-m", "unclip_jax", "launch", "stop", "a", "--home")
        subprocess.run([*argv, str(tmp_path / "home")], check=True, timeout=60)
        assert self.finish(process)[0] == 130
        assert cluster.sets == {}

    def test_a_killed_launcher_finds_its_set(self, cluster, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in cluster.sets)
        process.kill()
        process.communicate()
        (tmp_path / "home" / "a" / "state.json").unlink(missing_ok=True)  # before it was noted
        cluster.sets["a"]["status"] = {"conditions": [{"type": "Completed", "status": "True"}]}
        code, output = self.finish(self.launch(tmp_path))
        assert code == 0, output

    def test_another_set_of_that_name_is_left_alone(self, cluster, tmp_path):
        cluster.sets["a"] = {**jobset.manifest(spec(name="a")), "status": {}}
        code, output = self.finish(self.launch(tmp_path))
        assert code == 2
        assert "another JobSet a" in output
