"""Kubernetes on GKE: a JobSet manifest (jobset.x-k8s.io/v1alpha2), with Kueue's queue label.

One child job for each slice, one pod for each host. The container's own index makes the process
id, the first pod of the headless network the coordinator. Code 75 and evictions restart the set for
free, other failures within the budget; a set whose process ends with code 2, 65 or 74 is ended by
the launcher (JobSet tells two kinds of failure apart, not three).

kubectl hands the manifest over and watches it, with the credentials and the context it has.
"""

import json
from typing import Any

import yaml

from unclip_jax.errors import UserError

from .exits import FINAL, ExitClass
from .hosts import HostLost, ThisMachine
from .record import Record
from .scheduled import JobState, job_name
from .spec import Gke, RunSpec

PORT = 8476
_KEPT_SECONDS = 7 * 24 * 3600
_LONGEST_NAME = 40  # with the suffixes of jobs and pods it must stay below 63


def manifest(spec: RunSpec) -> dict[str, Any]:
    """The JobSet."""
    settings = spec.gke or Gke()
    name = job_name(spec)
    labels = {"app.kubernetes.io/managed-by": "unclip", "unclip/run": name}
    queue = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    hosts = spec.processes // settings.slices
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": _free_ends()},
        "template": {"metadata": {"labels": labels}, "spec": _pod(spec, settings)},
    }
    free = {
        "name": "free",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**labels, **queue},
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool",
                "unclip/id": spec.id,
            },
        },
        "spec": {
            "network": {"enableDNSHostnames": True},
            "failurePolicy": {"maxRestarts": spec.restarts.budget, "rules": [free]},
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "replicatedJobs": [
                {"name": "slice", "replicas": settings.slices, "template": {"spec": job}}
            ],
        },
    }


def _free_ends() -> list[dict[str, Any]]:
    """Saved and asked to stop, or evicted: the job then fails for the reason PodFailurePolicy."""
    codes = {"containerName": "unclip", "operator": "In", "values": [75]}
    evicted = {"type": "DisruptionTarget", "status": "True"}
    return [
        {"action": "FailJob", "onExitCodes": codes},
        {"action": "FailJob", "onPodConditions": [evicted]},
    ]


def _pod(spec: RunSpec, settings: Gke) -> dict[str, Any]:
    selector = {
        "cloud.google.com/gke-tpu-accelerator": settings.accelerator,
        "cloud.google.com/gke-tpu-topology": settings.topology,
    }
    container = {
        "name": "unclip",
        "image": settings.image,
        "command": _command(spec, settings),
        "env": _environment(spec, settings),
        "ports": [{"containerPort": PORT, "name": "coordinator", "protocol": "TCP"}],
        "resources": {"limits": {"google.com/tpu": str(settings.chips_per_host)}},
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(spec.limits.grace_seconds),
        "nodeSelector": {key: value for key, value in selector.items() if value},
        "containers": [container],
    }
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    if settings.priority:
        pod["priorityClassName"] = settings.priority
    return pod


def _command(spec: RunSpec, settings: Gke) -> list[str]:
    """The process's number from those of its slice and its pod; then the command itself."""
    if spec.processes == 1:
        return list(spec.command)
    hosts = spec.processes // settings.slices
    shell = f'export UNCLIP_PROCESS_ID=$((SLICE_INDEX * {hosts} + JOB_COMPLETION_INDEX)); exec "$@"'
    return ["sh", "-c", shell, "unclip", *spec.command]


def _environment(spec: RunSpec, settings: Gke) -> list[dict[str, Any]]:
    name = job_name(spec)
    plain = dict(pair.split("=", 1) for pair in spec.env)
    plain |= {"UNCLIP_RUN": spec.name, "PYTHONUNBUFFERED": "1"}
    if spec.processes > 1:
        plain["UNCLIP_COORDINATOR"] = f"{name}-slice-0-0.{name}:{PORT}"
        plain["UNCLIP_NUM_PROCESSES"] = str(spec.processes)
    index = "metadata.annotations['jobset.sigs.k8s.io/job-index']"
    attempt = "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"
    return [
        *({"name": key, "value": value} for key, value in plain.items()),
        {"name": "SLICE_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
        {"name": "UNCLIP_ATTEMPT", "valueFrom": {"fieldRef": {"fieldPath": attempt}}},
        *(
            {
                "name": key,
                "valueFrom": {"secretKeyRef": {"name": settings.secret, "key": key}},
            }
            for key in spec.secrets
        ),
    ]


def plan(spec: RunSpec, packed: bytes) -> str:
    """What `--dry-run` prints: the manifest and how it is handed over."""
    text = yaml.safe_dump(manifest(spec), sort_keys=False, width=100)
    return f"# {' '.join(_kubectl(spec))} create -f -\n{text}"


def check(spec: RunSpec) -> None:
    """Raises `UserError` for what can't be."""
    settings = spec.gke or Gke()
    if not settings.image:
        raise UserError("--on gke needs --option gke.image=…: a container image with unclip_jax")
    if settings.slices < 1 or spec.processes % settings.slices:
        raise UserError(f"--processes {spec.processes}: must be a multiple of gke.slices")
    if spec.secrets and not settings.secret:
        raise UserError("--secret on gke needs --option gke.secret=NAME: a secret of the cluster")
    if len(job_name(spec)) > _LONGEST_NAME:
        raise UserError(f"--name {spec.name}: on gke at most {_LONGEST_NAME} characters")


def _kubectl(spec: RunSpec) -> list[str]:
    settings = spec.gke or Gke()
    context = ["--context", settings.context] if settings.context else []
    return ["kubectl", *context, "--namespace", settings.namespace]


class GkeScheduler:
    """kubectl, as it is set up on this machine."""

    def __init__(self, spec: RunSpec):
        self._spec, self._name = spec, job_name(spec)
        self._newest_log = ""

    async def submit(self, record: Record, attempt: int) -> str:
        """Creates the set, unless the cluster has this very run already."""
        found = await self._get("jobset", self._name, "--ignore-not-found")
        if found:
            theirs = found["metadata"].get("annotations", {}).get("unclip/id")
            if theirs == self._spec.id:
                return self._name
            raise UserError(
                f"the cluster has another JobSet {self._name}: give --name, or delete it with "
                f"{' '.join(_kubectl(self._spec))} delete jobset {self._name}"
            )
        text = json.dumps(manifest(self._spec)).encode()
        ran = await ThisMachine().run([*_kubectl(self._spec), "create", "-f", "-"], text)
        if ran.code:
            raise UserError(f"kubectl create: {ran.errors.decode(errors='replace').strip()}")
        return self._name

    async def state(self, record: Record, job: str) -> JobState:
        """By the set's conditions and the pods' exit codes."""
        found = await self._get("jobset", job, "--ignore-not-found")
        if not found:
            return JobState("the JobSet was deleted", ExitClass.STOPPED)
        pods = await self._get("pods", "--selector", f"jobset.sigs.k8s.io/jobset-name={job}")
        for final in FINAL:
            if final.value in exit_codes(pods):
                await self._delete(job)
                return JobState(f"a process ended with code {final.value}", final)
        return judged(found)

    async def new_log(self, record: Record, job: str) -> list[str]:
        """What pods have printed since the last call; kept in the record."""
        since = [f"--since-time={self._newest_log}"] if self._newest_log else []
        selector = f"jobset.sigs.k8s.io/jobset-name={job}"
        argv = ["logs", "--selector", selector, "--timestamps", "--prefix", "--tail=-1", *since]
        ran = await ThisMachine().run([*_kubectl(self._spec), *argv, "--ignore-errors"])
        stamped = [line.split(" ", 2) for line in ran.output.decode(errors="replace").splitlines()]
        fresh = [line for line in stamped if len(line) == 3 and line[1] > self._newest_log]
        fresh.sort(key=lambda line: line[1])
        lines = [f"{prefix} {text}" for prefix, _, text in fresh]
        if fresh:
            self._newest_log = fresh[-1][1]
            path = record.log(1, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a") as log:
                log.writelines(f"{line}\n" for line in lines)
        return lines

    async def cancel(self, record: Record, job: str, grace: float) -> None:
        """Deletes the set; its pods get their period of grace."""
        await self._delete(job)

    async def _delete(self, job: str) -> None:
        await ThisMachine().run(
            [*_kubectl(self._spec), "delete", "jobset", job, "--ignore-not-found"]
        )

    async def _get(self, *what: str) -> dict[str, Any]:
        try:
            ran = await ThisMachine().run([*_kubectl(self._spec), "get", *what, "-o", "json"])
        except FileNotFoundError:
            raise UserError("no kubectl here: install it, and log in to the cluster") from None
        if ran.code:
            raise HostLost(ran.errors.decode(errors="replace").strip())
        return json.loads(ran.output) if ran.output.strip() else {}


def judged(jobset: dict[str, Any]) -> JobState:
    """The state that a JobSet's own status tells."""
    status = jobset.get("status", {})
    true = {c["type"]: c for c in status.get("conditions", []) if c.get("status") == "True"}
    if "Completed" in true:
        return JobState("every process ended well", ExitClass.DONE)
    if "Failed" in true:
        return JobState(true["Failed"].get("message", "failed"), ExitClass.CRASHED)
    if "Suspended" in true:
        return JobState("waiting for a place (suspended)")
    restarts = status.get("restarts", 0)
    return JobState(f"running, {restarts} restarts" if restarts else "running")


def exit_codes(pods: dict[str, Any]) -> set[int]:
    """The exit codes of all containers that have ended."""
    found = set()
    for pod in pods.get("items", []):
        for container in pod.get("status", {}).get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated")
            if ended:
                found.add(ended["exitCode"])
    return found
