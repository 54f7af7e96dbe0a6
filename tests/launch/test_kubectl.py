"""Launches and sweeps on Kubernetes with the real kubectl, against a fake API server."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import ClassVar

import pytest
from kube_lab import kube as kube

pytestmark = [
    pytest.mark.launch,
    pytest.mark.core,
    pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl"),
]


class TestLaunch:
    """One run."""

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

    def test_a_set_is_applied_followed_and_completes(self, kube, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in kube.sets)
        kube.sets["a"]["status"] = {"conditions": [{"type": "Completed", "status": "True"}]}
        code, output = self.finish(process)
        assert code == 0, output

    def test_exit_code_2_ends_the_set(self, kube, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in kube.sets)
        ended = {"name": "unclip", "state": {"terminated": {"exitCode": 2}}}
        kube.pods = [
            {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
             "status": {"containerStatuses": [ended]}}
        ]  # fmt: skip
        code, output = self.finish(process)
        assert code == 2, output
        assert kube.sets == {}

    def test_stopping_deletes_the_set(self, kube, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in kube.sets)
        argv = (sys.executable, "-m", "unclip_jax", "launch", "stop", "a", "--home")
        subprocess.run([*argv, str(tmp_path / "home")], check=True, timeout=60)
        assert self.finish(process)[0] == 130
        assert kube.sets == {}

    def test_a_killed_launcher_finds_its_set(self, kube, tmp_path, wait_until):
        process = self.launch(tmp_path)
        wait_until(lambda: "a" in kube.sets)
        process.kill()
        process.communicate()
        (tmp_path / "home" / "a" / "state.json").unlink(missing_ok=True)  # before it was noted
        kube.sets["a"]["status"] = {"conditions": [{"type": "Completed", "status": "True"}]}
        code, output = self.finish(self.launch(tmp_path))
        assert code == 0, output

    def test_another_set_of_that_name_is_left_alone(self, kube, tmp_path):
        kube.sets["a"] = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": "a", "annotations": {"unclip/id": "another"}},
        }
        code, output = self.finish(self.launch(tmp_path))
        assert code == 2
        assert "another JobSet a" in output


def completes(kube, manifest, loss):
    """What the cluster would do: the pod writes its metrics, and the set is complete."""
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    command = " ".join(pod["containers"][0]["command"])
    out = pathlib.Path(re.search(r"--workdir (\S+)", command)[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text(json.dumps({"step": 4, "validation/loss": loss}) + "\n")
    manifest["status"] = {"conditions": [{"type": "Completed", "status": "True"}]}


def test_each_trial_of_a_sweep_is_a_set(kube, tmp_path, wait_until):
    folder = tmp_path / "a_Sweep.with-a-long-name-that-sets-do-not-take"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "unclip_jax", "sweep", "--config", "prior_lr:tiny"),
            *("--on", "gke", "--option", "gke.image=image:1", "--workdir", str(folder)),
            *("--concurrency", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for done in (0, 2):
            wait_until(lambda done=done: len(kube.sets) == done + 2, 60)
            for number, manifest in enumerate(list(kube.sets.values())[done:], done):
                completes(kube, manifest, loss=9.0 - number)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
    assert process.returncode == 0, output
    with open(folder / "results.csv") as table:
        assert [row["validation/loss"] for row in csv.DictReader(table)] == ["6", "7", "8", "9"]
    settings = {" ".join(map(str, m["spec"]["replicatedJobs"])) for m in kube.sets.values()}
    assert len(settings) == 4
