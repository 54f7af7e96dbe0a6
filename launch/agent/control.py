"""What the launcher does to a process that a keeper has: follow it, and end it."""

import json
import os
import sys
import time

from folder import kill_all, renew, status, write

BEAT_SECONDS = 1.0


def follow(folder, offset):
    """Prints {"line", "at"}, {"beat"} and at last {"code", "reason"}; "at" is where to go on."""
    beat = 0.0
    while True:
        state = status(folder)  # before the log is read, so that nothing is missed
        if state["state"] == "running":
            renew(folder)
        for line in _lines(folder, offset, whole=state["state"] == "running"):
            offset += len(line)
            say({"line": line.decode("utf-8", "surrogateescape"), "at": offset})
        if state["state"] != "running":
            say(state)
            return
        if time.time() - beat >= BEAT_SECONDS:
            beat = time.time()
            say({"beat": beat})
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
        write(os.path.join(folder, "stop"), str(grace))
        deadline = time.time() + grace + 20
        while status(folder)["state"] == "running" and time.time() < deadline:
            time.sleep(0.05)
    if status(folder)["state"] != "running":
        kill_all(folder)
    return status(folder)


def say(value):
    """One JSON line to the launcher."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
