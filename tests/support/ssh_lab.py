"""Hosts on one machine: network namespaces with an SSH server and a disk of their own.

Needs root, openssh-server and iproute2. Names and addresses carry a suffix, so that labs of several
test runs do not meet. Everything is taken down by the process ids and names of this lab alone.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time

SSHD = "/usr/sbin/sshd"


def reason_to_skip():
    """Why no lab can be built here, or None."""
    if os.geteuid():
        return "needs root, for network namespaces"
    missing = [name for name in ("ip", "ssh-keygen") if not shutil.which(name)]
    if not pathlib.Path(SSHD).exists():
        missing.append("sshd")
    if missing:
        return f"needs {', '.join(missing)} (make launch-tests installs them)"
    trial = ["unshare", "--net", "--mount", "ip", "link", "add", "lab", "type", "bridge"]
    if subprocess.run(trial, capture_output=True).returncode:
        return "needs the right to make network namespaces and bridges"
    return None


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


class Lab:
    """`count` hosts h1, h2 …; each sees its own disk at `disk`, and all see `shared`."""

    def __init__(self, folder, count=3):
        self.folder = folder
        self.suffix = f"{os.getpid() % 46656:x}"
        self.bridge = f"br{self.suffix}"
        self.net = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self.names = [f"h{i}" for i in range(1, count + 1)]
        self.disk, self.shared = folder / "disk", folder / "shared"
        self.wheels = folder / "wheels"  # what pip finds there: the hosts have no way out
        self.servers = {}

    def up(self):
        for path in (self.disk, self.shared):
            path.mkdir()
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("id", "hostkey", "stranger"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key))
        (self.folder / "authorized_keys").write_text((self.folder / "id.pub").read_text())
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.net}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for i, name in enumerate(self.names, 1):
            self._wire(i, name)
            self.start_sshd(name)
        hostkey = (self.folder / "hostkey.pub").read_text().rsplit(" ", 1)[0]
        known = "".join(f"{self.address(n)} {hostkey}\n" for n in self.names)
        (self.folder / "known_hosts").write_text(known)
        (self.folder / "hosts.txt").write_text(
            "# the lab\n" + "".join(f"root@{self.address(n)}\n" for n in self.names)
        )
        return self

    def down(self):
        for name in self.names:
            self.kill(name)
            run("ip", "netns", "del", self.space(name))
            subprocess.run(["ip", "link", "del", self.cable(name)], capture_output=True)
            shutil.rmtree(f"/etc/netns/{self.space(name)}")
        run("ip", "link", "del", self.bridge)

    def space(self, name):
        return f"{name}-{self.suffix}"

    def cable(self, name):
        return f"v{name}{self.suffix}"

    def address(self, name):
        return f"{self.net}.{name[1:]}"

    def _wire(self, i, name):
        space, cable = self.space(name), self.cable(name)
        etc = pathlib.Path("/etc/netns") / space
        etc.mkdir(parents=True)  # before the server starts: it becomes the host's own /etc/hosts
        hosts = [f"{self.address(n)} {n}" for n in self.names]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        (self.folder / f"disk-{name}").mkdir()
        run("ip", "netns", "add", space)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", cable, "master", self.bridge, "up")
        run("ip", "-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")

    def start_sshd(self, name):
        config = self.folder / f"sshd-{name}.conf"
        pip = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={self.wheels}"
        config.write_text(
            textwrap.dedent(f"""\
            ListenAddress {self.address(name)}
            HostKey {self.folder}/hostkey
            PidFile {self.folder}/sshd-{name}.pid
            AuthorizedKeysFile {self.folder}/authorized_keys
            PasswordAuthentication no
            PermitRootLogin yes
            StrictModes no
            UsePAM no
            SetEnv PATH={os.environ["PATH"]} LAB_HOST={name} {pip}
            """)
        )
        inside = (
            f"mount --bind {self.folder}/disk-{name} {self.disk} && hostname {name} && "
            f"exec {SSHD} -D -f {config}"
        )
        self.servers[name] = subprocess.Popen(
            ["ip", "netns", "exec", self.space(name), "unshare", "--uts", "bash", "-c", inside],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if (self.folder / f"sshd-{name}.pid").exists():
                return
            time.sleep(0.02)
        raise TimeoutError(name)

    def pull_cable(self, name):
        run("ip", "-n", self.space(name), "link", "set", "eth0", "down")

    def plug_cable(self, name):
        run("ip", "-n", self.space(name), "link", "set", "eth0", "up")

    def pids(self, name):
        """Ids of all processes on a host."""
        argv = ["ip", "netns", "pids", self.space(name)]
        return [int(p) for p in subprocess.run(argv, capture_output=True, text=True).stdout.split()]

    def kill(self, name):
        """The host loses power."""
        for _ in range(50):
            pids = self.pids(name)
            for pid in pids:
                subprocess.run(["kill", "-9", str(pid)], capture_output=True)
            if not pids:
                break
            time.sleep(0.02)
        self.servers[name].wait()
        (self.folder / f"sshd-{name}.pid").unlink(missing_ok=True)

    def place(self, *more):
        """The options of `unclip launch` for this lab."""
        return (
            *("ssh", "--hosts", str(self.folder / "hosts.txt"), "--root", str(self.disk)),
            *("--known-hosts", str(self.folder / "known_hosts")),
            *("--identity", str(self.folder / "id"), *more),
        )


if __name__ == "__main__":  # python tests/support/ssh_lab.py FOLDER: a lab to try things in by hand
    lab = Lab(pathlib.Path(sys.argv[1])).up()
    print(f"hosts: {lab.folder}/hosts.txt; Enter ends the lab")
    input()
    lab.down()
