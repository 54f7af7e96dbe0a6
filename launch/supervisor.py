"""The life of a run: provision, prepare, attempt after attempt, release.

Every change of phase is recorded before it is acted on, and every act may be done twice, so a
launcher that is killed anywhere goes on from the record when it is started again.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping

from unclip_jax.errors import UserError

from . import commands
from .attempt import TAIL_LINES, Attempt, Show
from .exits import ExitClass, Verdict, judge
from .hosts import Connection, HostLost
from .place import Place
from .record import Record, State
from .restart import PastAttempt, decide
from .spec import Host, RunSpec

_POLL_SECONDS = 0.2


async def supervise(record: Record, place: Place, show: Show) -> ExitClass:
    """Looks after a run until it is over; the caller holds the record's lock."""
    spec = record.spec
    secrets = secret_values(spec)
    while True:
        state = record.state
        if state.phase == "over":
            return ExitClass[state.result]
        if state.phase == "waiting" and not await _wait(record, state):
            return _finish(record, Verdict(ExitClass.STOPPED, None, "it was stopped"), show)
        verdict, step = await _attempt(record, place, secrets, show)
        state = record.state
        past = PastAttempt(
            attempt=state.attempt,
            kind=verdict.kind.name,
            text=verdict.text,
            step=step,
            ended=time.time(),
        )
        decision = decide(spec.restarts, (*state.past, past))
        if decision.delay is None:
            final = Verdict(verdict.kind, verdict.process, decision.why)
            record.change(past=(*state.past, past))
            return _finish(record, final, show)
        show(f"launch: {verdict.text}; attempt {state.attempt + 1} in {decision.delay:g} s")
        record.change(
            phase="waiting",
            attempt=state.attempt + 1,
            wait_until=time.time() + decision.delay,
            past=(*state.past, past),
            text=verdict.text,
        )


async def _attempt(
    record: Record, place: Place, secrets: Mapping[str, str], show: Show
) -> tuple[Verdict, int | None]:
    """Provisions, prepares and runs the present attempt; (its verdict, its last step)."""
    spec, state = record.spec, record.state
    attempt: Attempt | None = None
    connections: dict[str, Connection] = {}
    try:
        hosts = await place.hosts(record, show)
        connections = {host.name: place.connect(host) for host in hosts}
        attempt = Attempt(spec, record, state.attempt, hosts, connections, show)
        if state.phase == "running" and state.hosts == hosts:
            show(f"launch: back at attempt {state.attempt} of {spec.name}")
        else:
            await _prepare(record, hosts, connections, show)
            record.change(phase="starting", hosts=hosts)
            show(f"launch: attempt {state.attempt} of {spec.name} on {', '.join(connections)}")
            if not await attempt.start(secrets):
                await attempt.stop(0.0)
                return judge(attempt.ends), None
            record.change(phase="running")
        verdict = await attempt.follow()
        if verdict.kind not in (ExitClass.DONE, ExitClass.STOPPED):
            _show_tails(record, state.attempt, attempt, verdict, show)
        return verdict, attempt.step
    except HostLost as lost:
        return Verdict(ExitClass.LOST, None, str(lost)), None
    except UserError as mistake:
        if attempt is not None:
            await attempt.stop(0.0)
        return Verdict(ExitClass.USER_ERROR, None, str(mistake)), None
    finally:
        for connection in connections.values():
            await connection.close()


async def _prepare(
    record: Record, hosts: tuple[Host, ...], connections: Mapping[str, Connection], show: Show
) -> None:
    spec, packed = record.spec, record.code()
    if spec.backend == "local":
        return

    async def one(host: Host) -> None:
        for command in commands.prepare(spec, host, packed):
            show(f"launch: {host.name}: {command.what}")
            ran = await connections[host.name].run(command.argv, command.stdin)
            if ran.code:
                errors = ran.errors.decode(errors="replace").strip()
                raise UserError(f"{host.name}: can't {command.what}: {errors[-2000:]}")

    await asyncio.gather(*(one(host) for host in hosts))


async def _wait(record: Record, state: State) -> bool:
    """Waits for the next attempt's time; False if someone asked to stop."""
    while time.time() < state.wait_until:
        if record.stop_request() is not None:
            return False
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, state.wait_until - time.time())))
    return record.stop_request() is None


def _finish(record: Record, verdict: Verdict, show: Show) -> ExitClass:
    text = verdict.text
    if verdict.process is not None:
        text += f"; its log: {record.log(record.state.attempt, verdict.process)}"
    record.change(phase="over", result=verdict.kind.name, text=text)
    record.clear_stop()
    show(f"launch: {record.name} is over ({verdict.kind.name.lower()}): {text}")
    return verdict.kind


def _show_tails(
    record: Record, number: int, attempt: Attempt, verdict: Verdict, show: Show
) -> None:
    """The last lines of the process that failed first: with many hosts they are far up by now."""
    if verdict.process is None or attempt.spec.processes == 1:
        return
    path = record.log(number, verdict.process)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    show(f"launch: process {verdict.process} failed first; its last lines:")
    for line in lines[-TAIL_LINES:]:
        show(f"    {line}")


def secret_values(spec: RunSpec) -> dict[str, str]:
    """The values of the spec's secrets, from this process's environment."""
    missing = [name for name in spec.secrets if name not in os.environ]
    if missing:
        raise UserError(f"--secret {missing[0]}: there is no such variable in the environment")
    return {name: os.environ[name] for name in spec.secrets}


@contextlib.contextmanager
def stop_on_signals(record: Record, grace: float):
    """SIGINT and SIGTERM ask for a stop; a second one lets nothing more be saved."""
    count = 0

    def ask(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        record.ask_to_stop(grace if count == 1 else 0.0)

    previous = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
