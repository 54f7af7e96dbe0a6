"""The JobSet against strict schemas; SkyPilot's task by running what it runs."""

import json
import os
import subprocess

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


@pytest.mark.core
@pytest.mark.launch
def test_the_job_and_its_pods_are_strictly_valid():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(job_of(jobset.manifest(spec())), "1.34", strict=True)
    broken = jobset.manifest(spec())
    broken["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    with pytest.raises(Exception, match="backofLimit"):  # a schema that never says no is none
        kubernetes_validate.validate(job_of(broken), "1.34", strict=True)


@pytest.mark.core
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
