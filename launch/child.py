"""One command as a child process of this one.

Signals reach the child and are waited out: a training run that is stopped saves its state first.
"""

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType


def run(argv: Sequence[str]) -> int:
    """Runs a command with this process's terminal; returns its exit code.

    SIGTERM and SIGINT are passed on (a terminal sends Ctrl-C to the child itself). The code is
    128 + n if signal n killed the child.
    """
    child = subprocess.Popen(list(argv))

    def forward(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    previous = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    try:
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
