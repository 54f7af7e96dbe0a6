"""A real SLURM with four nodes on one machine, with ports and folders of its own.

Needs root and the packages slurm-wlm and munge. Ends only the daemons that it started. The nodes'
names resolve inside of them alone: each daemon has an /etc/hosts of its own, by a mount namespace.
"""

import datetime
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest

NODES = 4


def reason_to_skip():
    """Why no cluster can be started here, or None."""
    if os.geteuid():
        return "needs root, for slurmd"
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not which(name)]
    if missing:
        return f"needs {', '.join(missing)} (make launch-tests installs them)"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "needs the right to make mount namespaces"
    return None


def which(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def name_of(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text()


class Cluster:
    """slurmctld and one slurmd for each node n1 … n4."""

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.hosts = folder / "hosts"
        self.env = {**os.environ, "SLURM_CONF": str(self.conf)}
        self.daemons = {}

    def up(self):
        self._munge()
        names = "".join(f"127.0.0.1 n{i}\n" for i in range(1, NODES + 1))
        self.hosts.write_text(pathlib.Path("/etc/hosts").read_text() + names)
        (self.folder / "state").mkdir()
        base = 23000 + os.getpid() % 3000
        host = socket.gethostname().split(".")[0]
        ports = f"{base + 1}-{base + NODES}"
        self.conf.write_text(
            f"""ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdSpoolDir={self.folder}/spool-%n
SlurmdPidFile={self.folder}/%n.pid
SlurmctldPort={base}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=300
JobRequeue=1
SchedulerParameters=sched_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n[1-{NODES}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}] CPUs=2 State=UNKNOWN
PartitionName=main Nodes=n[1-{NODES}] Default=YES MaxTime=INFINITE State=UP
"""
        )
        self._start("slurmctld", "-D", "-c")
        for i in range(1, NODES + 1):
            self.start_node(f"n{i}")
        self.wait(lambda: self("sinfo", "--noheader", "--format=%T").strip() == "idle")
        return self

    def start_node(self, name):
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._start("slurmd", "-D", "-N", name, key=name)

    def kill_node(self, name):
        """The node's daemon and all that it runs."""
        daemon = self.daemons.pop(name)
        tasks = self.tasks(name)
        steps = {parent for parent in map(parent_of, tasks) if "slurmstepd" in name_of(parent)}
        daemon.kill()
        daemon.wait()
        for pid in (*steps, *tasks):
            subprocess.run(["kill", "-9", str(pid)], capture_output=True)

    def tasks(self, node):
        """Ids of the processes that this cluster runs on a node."""
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.conf}".encode()}
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                if marks <= set(path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def down(self):
        self("scancel", "--me")
        time.sleep(1)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()

    def hurry(self):
        """Requeued jobs are not eligible for two minutes; tests do not wait for that.

        A few seconds must stay: nodes take what was put together in the second in which they ended
        the last attempt for a part of it, and refuse it.
        """
        waiting = self("squeue", "--states=PENDING", "--noheader", "--format=%i %r %S")
        for job, reason, start in map(str.split, waiting.splitlines()):
            if reason == "BeginTime" and start != "N/A":
                left = datetime.datetime.fromisoformat(start) - datetime.datetime.now()
                if left.total_seconds() > 10:
                    self("scontrol", "update", f"jobid={job}", "StartTime=now+5")

    def finish(self, process, seconds=400):
        """(exit code, output) of a launcher whose job may go back into the queue."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                return process.returncode, output
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise
                self.hurry()

    def __call__(self, *argv):
        return subprocess.run(argv, env=self.env, capture_output=True, text=True).stdout

    def wait(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.2)
        raise TimeoutError(self("sinfo") + self("squeue"))

    def _start(self, program, *argv, key=None):
        inside = f'mount --bind {self.hosts} /etc/hosts && exec "$@"'
        with open(self.folder / f"{key or program}.log", "ab") as log:
            self.daemons[key or program] = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", inside, "bash", which(program), *argv],
                env=self.env, stdout=log, stderr=log,
            )  # fmt: skip

    def _munge(self):
        """The machine's munge daemon; started if there is none, and then left running."""
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return
        for path in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
            pathlib.Path(path).mkdir(exist_ok=True)
            shutil.chown(path, "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", which("munged")], check=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM of four nodes; conftest files import this."""
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield made.up()
    finally:
        made.down()
