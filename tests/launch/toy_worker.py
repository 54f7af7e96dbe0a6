"""A trainer in small, standard library only: counts steps, saves them, fails as it is told.

Its state is one file in the workdir for each process; every step that it makes is also appended to
`steps`, so that a test can see which were made twice.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--workdir", type=pathlib.Path, required=True)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--delay", type=float, default=0.02)
parser.add_argument("--save-every", type=int, default=1)
parser.add_argument("--fail", default="", help="PROCESS:STEP:CODE, once; CODE hang or kill too")
parser.add_argument("--always", action="store_true", help="fail every time")
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument("--orphan", action="store_true", help="leave a child behind in another session")
parser.add_argument("--say", default="", help="a variable to print")
args = parser.parse_args()

process = int(os.environ.get("UNCLIP_PROCESS_ID", "0"))
args.workdir.mkdir(parents=True, exist_ok=True)
state = args.workdir / f"state-{process}"
stopped = False


def on_term(number, frame):
    global stopped
    stopped = not args.ignore_term
    print("asked to stop", flush=True)


signal.signal(signal.SIGTERM, on_term)
if args.say:
    print(f"{args.say}={os.environ.get(args.say)}", flush=True)
if args.orphan:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (args.workdir / f"orphan-{process}").write_text(str(child.pid))
with open(args.workdir / f"starts-{process}", "a") as file:
    file.write(f"{os.environ.get('UNCLIP_ATTEMPT')} {os.environ.get('UNCLIP_COORDINATOR')}\n")


def save(step):
    draft = state.with_suffix(".tmp")
    draft.write_text(str(step))
    draft.replace(state)


def fail(code):
    if code == "hang":
        time.sleep(1000)
    if code == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(code))


first = int(state.read_text()) if state.exists() else 0
for step in range(first + 1, args.steps + 1):
    if stopped:
        save(step - 1)
        sys.exit(75)
    time.sleep(args.delay)
    if args.fail:
        who, at, code = args.fail.split(":")
        failed = args.workdir / f"failed-{process}"
        if (process, step) == (int(who), int(at)) and (args.always or not failed.exists()):
            failed.touch()
            fail(code)
    with open(args.workdir / f"steps-{process}", "a") as file:
        file.write(f"{step}\n")
    if step % args.save_every == 0:
        save(step)
    print(f"toy: {step}/{args.steps} steps", flush=True)
