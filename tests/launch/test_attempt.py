"""Following an attempt: what was opened on its hosts is closed before the verdict."""

import asyncio
import json

from unclip_jax.launch.attempt import Attempt
from unclip_jax.launch.exits import ExitClass
from unclip_jax.launch.record import Record
from unclip_jax.launch.spec import Host, RunSpec


class Ending:
    """A host whose processes print a line and end, and whose commands take a while to close."""

    def __init__(self):
        self.opened = self.closed = 0

    async def lines(self, argv):
        self.opened += 1
        try:
            yield json.dumps({"line": "step 3\n"})
            yield json.dumps({"code": 0, "reason": ""})
            await asyncio.Event().wait()  # goes on, as an agent may
        finally:
            await asyncio.sleep(0.05)
            self.closed += 1


def test_commands_that_follow_logs_are_closed_before_the_verdict(tmp_path):
    host, ending = Host(name="a", address="127.0.0.1"), Ending()
    spec = RunSpec(
        name="run",
        backend="local",
        command=("toy",),
        hosts=(host,),
        root=str(tmp_path / "root"),
        cwd=str(tmp_path),
        host_python="python3",
        processes=2,
        progress=r"step (\d+)",
    )
    record = Record(tmp_path / "home", "run")
    record.create(spec, b"")
    attempt = Attempt(spec, record, 1, (host,), {"a": ending}, lambda line: None)

    async def follow():
        verdict = await attempt.follow()
        return verdict, ending.closed

    verdict, closed = asyncio.run(follow())
    assert verdict.kind is ExitClass.DONE
    assert attempt.step == 3
    assert ending.opened == closed == 2
