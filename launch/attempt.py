"""One attempt: all processes started at once, followed to their ends, and none left behind.

Each process is followed over one channel, which carries its log, a beat every second and its end.
A broken channel is taken up again where it broke; a host that stays silent is lost.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from . import commands
from .exits import Exit, ExitClass, Verdict, judge
from .hosts import Connection, HostLost
from .record import Record
from .spec import Host, RunSpec

Show = Callable[[str], None]
TAIL_LINES = 20
_POLL_SECONDS = 0.2
_SILENCE_SECONDS = 8.0  # agents beat every second


class Attempt:
    """The processes of one attempt; `step` is the last one that their logs showed."""

    def __init__(
        self,
        spec: RunSpec,
        record: Record,
        number: int,
        hosts: tuple[Host, ...],
        connections: Mapping[str, Connection],
        show: Show,
    ):
        self.spec, self.record, self.number, self.hosts = spec, record, number, hosts
        self.connections, self.show = connections, show
        self.step: int | None = None
        self.ends: list[Exit] = []
        self._progress = re.compile(spec.progress)
        self._moved = time.monotonic()  # when progress was last seen
        self._stepping = False

    async def start(self, secrets: Mapping[str, str]) -> bool:
        """Starts what is not started yet, on all hosts at once; False if one could not be."""
        everyone = range(self.spec.processes)
        started = await asyncio.gather(*(self._start(p, secrets) for p in everyone))
        self.ends += [end for end in started if end is not None]
        return not self.ends

    async def follow(self) -> Verdict:
        """Follows all processes to their ends; returns how the attempt ended."""
        self._moved = time.monotonic()
        tasks = [asyncio.create_task(self._follow(p)) for p in range(self.spec.processes)]
        try:
            verdict = await self._watch(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return verdict or judge(self.ends)

    async def stop(self, grace: float) -> None:
        """Ends what still runs on the hosts that can be reached."""
        over = {end.process for end in self.ends if end.code is not None}
        left = [p for p in range(self.spec.processes) if p not in over]
        await asyncio.gather(*(self._stop(p, grace) for p in left))

    def _connection(self, process: int) -> Connection:
        return self.connections[commands.host_of(self.spec, self.hosts, process).name]

    async def _start(self, process: int, secrets: Mapping[str, str]) -> Exit | None:
        command = commands.start(self.spec, self.hosts, self.number, process, secrets)
        try:
            ran = await self._connection(process).run(command.argv, command.stdin)
        except HostLost as lost:
            return Exit(process, None, str(lost))
        if ran.code:
            return Exit(process, 255, ran.errors.decode(errors="replace").strip()[-300:])
        return None

    async def _stop(self, process: int, grace: float) -> None:
        limit = grace + 30
        with contextlib.suppress(HostLost, asyncio.TimeoutError):
            argv = commands.stop(self.spec, self.number, process, grace)
            await asyncio.wait_for(self._connection(process).run(argv), limit)

    async def _watch(self, tasks: list[asyncio.Task[None]]) -> Verdict | None:
        """Waits for all to end; ends them when one fails, none moves, or someone asks for it."""
        failed_at: float | None = None
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=_POLL_SECONDS)
            for task in tasks:
                if task.done():
                    task.result()  # a defect of ours, or a UserError, comes up here
            grace = self.record.stop_request()
            if grace is not None:
                await self._stop_all(tasks, grace)
                if judge(self.ends).kind is ExitClass.DONE:
                    return None
                return Verdict(ExitClass.STOPPED, None, "it was stopped")
            if failed_at is None and any(end.code != 0 for end in self.ends):
                failed_at = time.monotonic()
            if failed_at and time.monotonic() - failed_at > self.spec.limits.drain_seconds:
                await self._stop_all(tasks, self.spec.limits.drain_seconds)
                return None
            stalled = self._stalled()
            if stalled and failed_at is None:
                await self._stop_all(tasks, 0.0)
                return Verdict(ExitClass.STALLED, None, stalled)
        return None

    async def _stop_all(self, tasks: list[asyncio.Task[None]], grace: float) -> None:
        stopping = asyncio.create_task(self.stop(grace))
        while not stopping.done():
            await asyncio.wait([stopping], timeout=_POLL_SECONDS)
            if grace and self.record.stop_request() == 0.0:  # asked a second time: at once
                grace = 0.0
                await self.stop(grace)
        stopping.result()
        await asyncio.wait(tasks, timeout=10)  # their logs' last lines

    def _stalled(self) -> str | None:
        limits = self.spec.limits
        if not limits.stall_seconds:
            return None
        allowed = limits.stall_seconds if self._stepping else limits.startup_seconds
        if time.monotonic() - self._moved <= allowed:
            return None
        if self._stepping:
            return f"no step for {allowed:g} s after step {self.step}"
        silent = [
            f"{p} on {commands.host_of(self.spec, self.hosts, p).name}"
            for p in range(self.spec.processes)
            if not self._has_log(p)
        ]
        who = f"; silent so far: process {', '.join(silent)}" if silent else ""
        return f"no step within {allowed:g} s of the start{who}"

    def _has_log(self, process: int) -> bool:
        path = self.record.log(self.number, process)
        return path.exists() and path.stat().st_size > 0

    async def _follow(self, process: int) -> None:
        """Copies a process's log and notes its end; holds on while its host is away for a while."""
        heard = time.monotonic()
        delay = 0.5
        while True:
            try:
                # Closed here: a loop that ends may not outlive what the collector would close.
                async with contextlib.aclosing(self._messages(process)) as messages:
                    while True:
                        message = await asyncio.wait_for(anext(messages), _SILENCE_SECONDS)
                        heard, delay = time.monotonic(), 0.5
                        if "code" in message:
                            self.ends.append(Exit(process, message["code"], message["reason"]))
                            return
            except StopAsyncIteration:
                lost = HostLost("the channel closed")
            except TimeoutError:
                lost = HostLost(f"nothing heard for {_SILENCE_SECONDS:g} s")
                await self._connection(process).close()
            except HostLost as error:
                lost = error
            if time.monotonic() - heard > self.spec.limits.lost_seconds:
                self.ends.append(Exit(process, None, str(lost)))
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, 5.0)

    async def _messages(self, process: int) -> AsyncGenerator[dict[str, Any], None]:
        """What the agent says of a process; log lines are written and shown on the way."""
        path = self.record.log(self.number, process)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as log:
            argv = commands.follow(self.spec, self.number, process, log.seek(0, 2))
            async with contextlib.aclosing(self._connection(process).lines(argv)) as lines:
                async for text in lines:
                    message = json.loads(text)
                    if "line" in message:
                        line = message["line"].encode("utf-8", "surrogateescape")
                        log.write(line)
                        self._note(process, line.decode(errors="replace").rstrip("\r\n"))
                    yield message

    def _note(self, process: int, line: str) -> None:
        match = self._progress.search(line)
        if match:
            self._moved, self._stepping = time.monotonic(), True
            if match.groups() and match.group(1):
                self.step = max(self.step or 0, int(match.group(1)))
        host = commands.host_of(self.spec, self.hosts, process).name
        self.show(f"[{process} {host}] {line}")
