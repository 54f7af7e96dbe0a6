"""The keeper of a process: a daemon that owns it, logs it, and ends it when it is time.

It writes FOLDER/log (secrets masked) and FOLDER/exit.json, and stops its process when asked or when
nobody has followed it for the lease. If the keeper is killed, the kernel kills the process.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time

from control import stop
from folder import MARK, ended, kill_all, renew, take, write_json

PR_SET_PDEATHSIG = 1
LONGEST_LINE = 1 << 16


def start(folder, job):
    """Claims the folder and leaves a keeper behind; what an earlier attempt left is ended first."""
    if job.get("replaces"):
        stop(job["replaces"], 0.0)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for _ in range(20):  # whoever asks for the status holds the lock for an instant
        lock = take(folder)
        if lock is not None:
            break
        time.sleep(0.05)
    else:
        return {"state": "running"}
    if os.path.exists(os.path.join(folder, "exit.json")):
        return ended(folder)
    renew(folder)
    if os.fork() == 0:
        try:
            _become_keeper(folder, job)
        finally:
            os._exit(0)
    return {"state": "running"}


def _become_keeper(folder, job):
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        end = _keep(folder, job)
    except Exception as error:
        end = {"code": 255, "reason": f"the agent failed: {error!r}"}
    end["time"] = time.time()
    write_json(os.path.join(folder, "exit.json"), end)


def _keep(folder, job):
    try:
        child = _spawn(folder, job)
    except OSError as error:
        return {"code": 2, "reason": f"can't start {job['argv'][0]}: {error}"}
    masks = [text.encode() for text in job.get("secrets", {}).values() if text]
    reader = threading.Thread(target=_copy_log, args=(child.stdout, folder, masks), daemon=True)
    reader.start()
    reason = ""
    while True:
        try:
            code = child.wait(timeout=0.1)
            break
        except subprocess.TimeoutExpired:
            request = _stop_request(folder, job)
            if request and not reason:
                reason = request[0]
                code = _terminate(child, folder, request[1])
                break
    kill_all(folder)
    reader.join(timeout=5)
    return {"code": 128 - code if code < 0 else code, "reason": reason}


def _spawn(folder, job):
    env = {k: v for k, v in os.environ.items() if k not in job.get("unset", ())}
    env.update(job.get("env", {}))
    env.update(job.get("secrets", {}))
    env[MARK] = os.path.abspath(folder)
    if job.get("packages"):
        env["PYTHONPATH"] = os.path.abspath(job["packages"])
    argv = list(job["argv"])
    if os.sep in argv[0]:
        argv[0] = os.path.abspath(argv[0])
    home = os.getpid()

    def bind():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != home:
            os._exit(1)

    return subprocess.Popen(
        argv,
        cwd=os.path.abspath(job.get("cwd") or "."),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=bind,  # single-threaded at this point
    )


def _copy_log(pipe, folder, masks):
    with open(os.path.join(folder, "log"), "ab", buffering=0) as log:
        for line in iter(lambda: pipe.readline(LONGEST_LINE), b""):
            for mask in masks:
                line = line.replace(mask, b"***")
            with contextlib.suppress(OSError):  # a full disk: the run is worth more than its log
                log.write(line)


def _stop_request(folder, job):
    """(reason, grace seconds) if the process is to end."""
    try:
        with open(os.path.join(folder, "stop")) as file:
            return "stopped", float(file.read() or 0)
    except OSError:
        pass
    lease = job.get("lease_seconds")
    age = time.time() - os.stat(os.path.join(folder, "lease")).st_mtime
    if lease and age > lease:
        return f"stopped: nobody followed it for {age:.0f} s", job.get("grace_seconds", 60.0)
    return None


def _terminate(child, folder, grace):
    """SIGTERM to the process (its own children are its business), then SIGKILL to all."""
    child.send_signal(signal.SIGTERM)
    deadline = time.time() + grace
    while True:
        try:
            return child.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            request = _stop_request(folder, {})  # a later request may shorten the grace
            if time.time() >= deadline or (request and request[1] == 0.0):
                kill_all(folder)
                return child.wait()


def _prctl(option, value):
    ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)
