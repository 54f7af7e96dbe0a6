"""The folder of a process: who holds it, how its process ended, what still runs for it.

A keeper holds a lock on FOLDER/keeper as long as it lives, and what it starts carries the folder's
name in its environment: no process id that was written down is ever trusted.
"""

import contextlib
import fcntl
import json
import os
import signal
import time

MARK = "UNCLIP_PROCESS_FOLDER"  # in the environment of all that a keeper starts


def status(folder):
    """{"state": "running", "ended" or "absent"}; with code and reason when it has ended."""
    if os.path.exists(os.path.join(folder, "exit.json")):
        return ended(folder)
    if not os.path.exists(os.path.join(folder, "keeper")):
        return {"state": "absent", "code": 137, "reason": "it was never started"}
    lock = take(folder)
    if lock is None:
        return {"state": "running"}
    os.close(lock)
    if os.path.exists(os.path.join(folder, "exit.json")):  # it ended while we looked
        return ended(folder)
    return {"state": "ended", "code": 137, "reason": "its keeper was killed"}


def ended(folder):
    """How its process ended."""
    with open(os.path.join(folder, "exit.json")) as file:
        return {"state": "ended", **json.load(file)}


def take(folder):
    """A file descriptor that holds the folder's lock, or None if a living keeper has it."""
    handle = os.open(os.path.join(folder, "keeper"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def renew(folder):
    """Says that it is followed."""
    path = os.path.join(folder, "lease")
    with open(path, "a"):
        os.utime(path)


def write(path, text):
    """Writes a file, whole or not at all."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        file.write(text)
    os.replace(draft, path)


def write_json(path, value):
    """The same with a value."""
    write(path, json.dumps(value))


def kill_all(folder):
    """SIGKILL to all that was started for this folder, also what has left its process group."""
    for _ in range(100):
        left = _marked(folder)
        if not left:
            return
        for pid in left:
            _kill(pid)
        time.sleep(0.02)


def _marked(folder):
    """Ids of living processes that were started for this folder."""
    mark = f"{MARK}={os.path.abspath(folder)}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):  # a zombie's is empty
                        found.append(int(name))
            except OSError:
                continue
    return found


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
