"""What runs on every host: standard library only, Python 3.8 or newer, pushed as one file.

agent start FOLDER < job.json    starts a process, detached; a second call changes nothing
agent follow FOLDER OFFSET       prints its log and its end as JSON lines; renews its lease
agent stop FOLDER GRACE          SIGTERM, GRACE seconds, SIGKILL of all it has started
agent status FOLDER              prints whether it runs, as JSON
agent unpack FOLDER < code.tar.gz  unpacks pushed code, once
agent install FOLDER < job.json    runs install commands, once
"""

import json
import os
import sys

from control import follow, say, stop
from folder import status
from host_code import install, unpack
from keeper import start


def main(arguments):
    command, folder, *rest = arguments
    try:
        if command == "start":
            say(start(folder, json.load(sys.stdin)))
        elif command == "follow":
            follow(folder, int(rest[0]))
        elif command == "stop":
            say(stop(folder, float(rest[0])))
        elif command == "status":
            say(status(folder))
        elif command == "unpack":
            say({"state": unpack(folder, sys.stdin.buffer)})
        elif command == "install":
            say({"state": install(folder, json.load(sys.stdin))})
        else:
            raise SystemExit(f"no command {command}")
    except BrokenPipeError:  # the launcher has gone; the keeper stays
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
