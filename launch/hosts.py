"""Running commands on a host: this machine here, others over SSH in `ssh.py`."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

LONGEST_LINE = 1 << 20  # bytes; the agent cuts lines at 64 KiB


class HostLost(Exception):
    """The host can't be reached, or the connection to it broke."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    output: bytes
    errors: bytes


class Connection(Protocol):
    """A host that takes commands. Every method raises `HostLost` when it is gone."""

    async def run(self, argv: Sequence[str], stdin: bytes = b"") -> Ran:
        """Runs a command to its end."""
        ...

    def lines(self, argv: Sequence[str]) -> AsyncGenerator[str, None]:
        """The lines that a command prints, as they come; closing it ends the command."""
        ...

    async def close(self) -> None:
        """Lets go of the host."""
        ...


class ThisMachine:
    """Commands as child processes."""

    async def run(self, argv: Sequence[str], stdin: bytes = b"") -> Ran:
        """Runs a command to its end."""
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the launcher alone
        )
        output, errors = await child.communicate(stdin)
        assert child.returncode is not None
        return Ran(child.returncode, output, errors)

    async def lines(self, argv: Sequence[str]) -> AsyncGenerator[str, None]:
        """The lines that a command prints, as they come."""
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            async for line in child.stdout:
                yield line.decode()
            await child.wait()
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)  # child.kill() would steal asyncio's wait
                await child.wait()

    async def close(self) -> None:
        """Nothing to let go of."""
