"""A whole run on a TPU of three hosts: asked for, reached, taken away, asked for again, given back.

The hosts are real (namespaces with SSH servers), Google's API is a fake of ours, and the gcloud
that logs in beside us is the real one.
"""

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest
import ssh_lab
from tpu_lab import TpuLab

from unclip_jax.launch import gcp_tpu
from unclip_jax.launch.exits import ExitClass
from unclip_jax.launch.gcp_request import node_id
from unclip_jax.launch.record import Record
from unclip_jax.launch.restart import Restarts
from unclip_jax.launch.spec import Limits, RunSpec, Tpu
from unclip_jax.launch.supervisor import supervise

pytestmark = [
    pytest.mark.launch,
    pytest.mark.core,
    pytest.mark.skipif(bool(ssh_lab.reason_to_skip()), reason=str(ssh_lab.reason_to_skip())),
]
TOY = pathlib.Path(__file__).with_name("toy_worker.py")


@pytest.fixture
def tpus(tmp_path):
    (tmp_path / "lab").mkdir()
    lab = ssh_lab.Lab(tmp_path / "lab")
    made = TpuLab(lab)
    try:
        lab.up()
        yield made
    finally:
        lab.down()
        made.close()


@pytest.fixture
def client(tpus):
    tpu_v2 = pytest.importorskip("google.cloud.tpu_v2")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.tpu_v2.services.tpu.transports import TpuRestTransport

    transport = TpuRestTransport(
        host=tpus.address, url_scheme="http", credentials=AnonymousCredentials()
    )
    return tpu_v2.TpuClient(transport=transport)


@pytest.fixture
def record(tpus, tmp_path):
    spec = RunSpec(
        name="run",
        id="1a",
        backend="gcp-tpu",
        command=(
            *(sys.executable, str(TOY), "--workdir", str(tpus.lab.shared / "w")),
            *("--steps", "150", "--delay", "0.1"),
        ),
        processes=3,
        root=str(tpus.lab.disk),
        cwd="/",
        progress=r"toy: (\d+)/",
        restarts=Restarts(backoff_seconds=1),
        limits=Limits(lost_seconds=3, drain_seconds=1),
        tpu=Tpu(
            project="p",
            zone="z",
            accelerator="v4-24",
            runtime="tpu-ubuntu2204-base",
            spot=True,
            external_ips=False,
            user="root",
            identity=str(tpus.lab.folder / "id"),
        ),
    )
    made = Record(tmp_path / "home", "run")
    made.create(spec)
    assert made.acquire()
    return made


def log_in(tpus, record, folder):
    """What `hostname` says on every host, by way of gcloud."""
    argv = [
        *("gcloud", "compute", "tpus", "tpu-vm", "ssh", f"root@{node_id(record.spec)}"),
        *("--zone", "z", "--worker=all", "--internal-ip", "--command=hostname"),
        f"--ssh-key-file={tpus.lab.folder / 'id'}",
    ]
    env = {**os.environ, **tpus.gcloud(folder)}
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    return sorted(ran.stdout.split())


def test_a_tpu_is_taken_away_and_the_run_goes_on(
    tpus, client, record, tmp_path, monkeypatch, wait_until
):
    monkeypatch.setattr(gcp_tpu, "POLL_SECONDS", 0.2)
    said, ended = [], []

    def run():
        place = gcp_tpu.TpuPlace(record.spec, client)

        async def whole():
            kind = await supervise(record, place, said.append)
            await place.release(record, said.append)
            return kind

        try:
            ended.append(asyncio.run(whole()))
        except BaseException as error:
            ended.append(repr(error))
            raise

    thread = threading.Thread(target=run)
    thread.start()
    steps = tpus.lab.shared / "w" / "steps-2"
    wait_until(lambda: ended or (steps.exists() and len(steps.read_text().split()) > 5), 120)
    assert not ended, (ended, said)
    if shutil.which("gcloud"):
        assert log_in(tpus, record, tmp_path) == ["h1", "h2", "h3"]
    tpus.state = "PREEMPTED"
    tpus.lab.kill("h3")
    wait_until(lambda: tpus.created == 2, 120)
    tpus.lab.start_sshd("h3")
    thread.join(timeout=300)
    assert ended == [ExitClass.DONE], said
    assert (tpus.created, tpus.deleted) == (2, 2)
    assert tpus.node is None
    for i in range(3):
        assert (tpus.lab.shared / "w" / f"state-{i}").read_text() == "150"
    assert len((tpus.lab.shared / "w" / "starts-2").read_text().splitlines()) == 2
