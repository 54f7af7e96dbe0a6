"""What a dry run prints on every backend, recorded: the commands, scripts, bodies and manifests.

`make golden` writes them anew; the diff is part of a review.
"""

import dataclasses
import os
import pathlib
import re

import pytest

from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.commands import HERE
from unclip_jax.launch.spec import (
    Code,
    Gke,
    Host,
    Install,
    RunSpec,
    SkyPilot,
    Slurm,
    Tpu,
    from_json,
    to_json,
)

FOLDER = pathlib.Path(__file__).parent / "launch"
TRAIN = (
    *("-m", "unclip_jax", "train", "--config", "prior:paper", "--workdir", "/runs/prior"),
    "--config.train.duration=1k steps",
)
CODE = Code(folder="/home/me/unclip_jax", sha256="0123456789abcdef", files=300, size=4)
INSTALL = Install(pins="constraints.txt", lock="fedcba9876543210")
HOSTS = (
    Host(name="a", address="10.0.0.1", login="a", user="me"),
    Host(name="b:2222", address="10.0.0.2", login="b", user="me", port=2222),
)


def spec(backend, python="python", **changes):
    return RunSpec(
        **{
            "name": "prior-paper",
            "backend": backend,
            "command": (python, *TRAIN),
            "workdir": "/runs/prior",
            "env": ("XLA_FLAGS=--xla_dump_to=/tmp/hlo",),
            "secrets": ("WANDB_API_KEY",),
            "progress": r"(\d+)/\d+ steps",
            **changes,
        }
    )


ON_HOSTS = {"code": CODE, "install": INSTALL}
SPECS = {
    "local": spec(
        "local",
        "/venv/bin/python",
        processes=2,
        root="/home/me/.unclip/launch/prior-paper/host",
        cwd="/home/me/unclip_jax",
        host_python="/venv/bin/python",
    ),
    "ssh": spec(
        "ssh", "unclip/venvs/fedcba9876543210/bin/python", processes=2, hosts=HOSTS, **ON_HOSTS
    ),
    "slurm": spec(
        "slurm",
        "/shared/venv/bin/python",
        processes=4,
        root="/shared/launch/prior-paper/host",
        cwd="/shared/unclip_jax",
        setup="module load cuda",
        slurm=Slurm(partition="gpu", time="24:00:00", gpus_per_node="8"),
    ),
    "gcp-tpu": spec(
        "gcp-tpu",
        "unclip/venvs/fedcba9876543210/bin/python",
        processes=4,
        tpu=Tpu(
            project="my-project",
            zone="us-central2-b",
            accelerator="v5litepod-16",
            runtime="v2-alpha-tpuv5-lite",
            spot=True,
            identity="/home/me/.ssh/tpu",
        ),
        **ON_HOSTS,
    ),
    "gke": spec(
        "gke",
        processes=8,
        gke=Gke(
            image="my-registry/unclip:1",
            queue="tpus",
            accelerator="tpu-v5-lite-podslice",
            topology="4x4",
            slices=2,
            secret="unclip-secrets",
        ),
    ),
    "skypilot": spec(
        "skypilot", processes=2, skypilot=SkyPilot(accelerators="H100:8", cloud="gcp", spot=True)
    ),
}


def shown(name):
    """The dry run, without what differs between machines and versions of the agent."""
    text = BACKENDS[name].plan(SPECS[name], b"tar!")
    text = text.replace(str(HERE), "LAUNCH")
    text = re.sub(r"agent/[0-9a-f]{16}", "agent/HASH", text)
    return re.sub(r"< \d+ bytes, sha256 [0-9a-f]{16}…", "< FILE", text)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_dry_run_is_as_recorded(name):
    path = FOLDER / f"{name}.txt"
    text = shown(name)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", BACKENDS)
def test_specs_survive_their_json(name):
    assert from_json(to_json(SPECS[name])) == SPECS[name]


def test_no_secret_value_is_read(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-value")
    for name in BACKENDS:
        assert "s3cr3t-value" not in shown(name) + to_json(SPECS[name])


def test_the_spec_lists_every_backend():
    assert set(SPECS) == set(BACKENDS)
    for name, backend in BACKENDS.items():
        backend.check(SPECS[name])
        fields = {f.name for f in dataclasses.fields(RunSpec)}
        assert not backend.group or backend.group in fields
