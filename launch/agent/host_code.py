"""Putting pushed code and a Python environment on a host, whole or not at all."""

import fcntl
import os
import subprocess
import sys
import tarfile


def unpack(folder, stream):
    """Plain files of a tar below `folder`, and nothing else; whole or not at all."""
    if os.path.exists(folder):
        return "present"
    draft = f"{folder}.{os.getpid()}"
    os.makedirs(draft)
    with tarfile.open(fileobj=stream, mode="r|gz") as tar:
        for member in tar:
            parts = member.name.split("/")
            if not member.isfile() or member.name.startswith("/") or ".." in parts:
                raise SystemExit(f"refused: {member.name} is not a plain file below the folder")
            path = os.path.join(draft, *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(tar.extractfile(member).read())
            os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
    try:
        os.rename(draft, folder)
    except OSError:  # another process of this host was faster
        if not os.path.exists(folder):
            raise
    return "unpacked"


def install(folder, job):
    """Runs the commands one after the other; a finished installation is marked and kept."""
    os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = os.path.join(folder, ".complete")
        if os.path.exists(done):
            return "present"
        for argv in job["commands"]:
            ran = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if ran.returncode:
                sys.stderr.write(ran.stdout.decode(errors="replace")[-4000:])
                raise SystemExit(f"failed: {' '.join(argv)}")
        with open(done, "w"):
            pass
    return "installed"
