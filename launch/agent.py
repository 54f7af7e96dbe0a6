"""What runs on every host: one file, standard library only, Python 3.8 or newer.

  agent.py start FOLDER < job.json  starts a process, detached; a second call changes nothing
  agent.py follow FOLDER OFFSET     prints its log and its end as JSON lines; renews its lease
  agent.py stop FOLDER GRACE        SIGTERM, GRACE seconds, SIGKILL of all it has started
  agent.py status FOLDER            prints whether it runs, as JSON

A started process has a keeper: a daemon that owns it, writes FOLDER/log (secrets masked) and
FOLDER/exit.json, and stops it when asked or when nobody has followed it for the lease. The keeper
holds a lock on FOLDER/keeper as long as it lives, and what it starts carries the folder's name in
its environment: no process id that was written down is ever trusted. If the keeper is killed, the
kernel kills the process.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

BEAT_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
MARK = "UNCLIP_PROCESS_FOLDER"  # in the environment of all that a keeper starts
LONGEST_LINE = 1 << 16


# ---------------------------------------------------------------------------------------- keeper


def start(folder, job):
    """Claims the folder and leaves a keeper behind; what an earlier attempt left is ended first."""
    if job.get("replaces"):
        stop(job["replaces"], 0.0)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for _ in range(20):  # whoever asks for the status holds the lock for an instant
        lock = _lock(folder)
        if lock is not None:
            break
        time.sleep(0.05)
    else:
        return {"state": "running"}
    if os.path.exists(os.path.join(folder, "exit.json")):
        return _end(folder)
    _renew(folder)
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
    _write_json(os.path.join(folder, "exit.json"), end)


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
    _kill_all(folder)
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
                _kill_all(folder)
                return child.wait()


def _kill_all(folder):
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


def _prctl(option, value):
    ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)


# ------------------------------------------------------------------------------- from the outside


def follow(folder, offset):
    """Prints {"line", "at"}, {"beat"} and at last {"code", "reason"}; "at" is where to go on."""
    beat = 0.0
    while True:
        state = status(folder)  # before the log is read, so that nothing is missed
        if state["state"] == "running":
            _renew(folder)
        for line in _lines(folder, offset, whole=state["state"] == "running"):
            offset += len(line)
            _say({"line": line.decode("utf-8", "surrogateescape"), "at": offset})
        if state["state"] != "running":
            _say(state)
            return
        if time.time() - beat >= BEAT_SECONDS:
            beat = time.time()
            _say({"beat": beat})
        time.sleep(0.1)


def _lines(folder, offset, whole):
    try:
        with open(os.path.join(folder, "log"), "rb") as log:
            log.seek(offset)
            text = log.read()
    except OSError:
        return []
    lines = text.splitlines(keepends=True)
    if whole and lines and not lines[-1].endswith((b"\n", b"\r")):
        lines.pop()
    return lines


def stop(folder, grace):
    """Asks the keeper to end its process and waits for that; ends what a killed keeper left."""
    if status(folder)["state"] == "running":
        _write(os.path.join(folder, "stop"), str(grace))
        deadline = time.time() + grace + 20
        while status(folder)["state"] == "running" and time.time() < deadline:
            time.sleep(0.05)
    if status(folder)["state"] != "running":
        _kill_all(folder)
    return status(folder)


def status(folder):
    """{"state": "running", "ended" or "absent"}; with code and reason when it has ended."""
    if os.path.exists(os.path.join(folder, "exit.json")):
        return _end(folder)
    if not os.path.exists(os.path.join(folder, "keeper")):
        return {"state": "absent", "code": 137, "reason": "it was never started"}
    lock = _lock(folder)
    if lock is None:
        return {"state": "running"}
    os.close(lock)
    if os.path.exists(os.path.join(folder, "exit.json")):  # it ended while we looked
        return _end(folder)
    return {"state": "ended", "code": 137, "reason": "its keeper was killed"}


def _lock(folder):
    """A file descriptor that holds the folder's lock, or None if a living keeper has it."""
    handle = os.open(os.path.join(folder, "keeper"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _end(folder):
    with open(os.path.join(folder, "exit.json")) as file:
        return {"state": "ended", **json.load(file)}


def _renew(folder):
    path = os.path.join(folder, "lease")
    with open(path, "a"):
        os.utime(path)


def _write(path, text):
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w") as file:
        file.write(text)
    os.replace(draft, path)


def _write_json(path, value):
    _write(path, json.dumps(value))


def _say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(arguments):
    command, folder, *rest = arguments
    try:
        if command == "start":
            _say(start(folder, json.load(sys.stdin)))
        elif command == "follow":
            follow(folder, int(rest[0]))
        elif command == "stop":
            _say(stop(folder, float(rest[0])))
        elif command == "status":
            _say(status(folder))
        else:
            raise SystemExit(f"no command {command}")
    except BrokenPipeError:  # the launcher has gone; the keeper stays
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
