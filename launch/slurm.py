"""SLURM: one job for the run, one task for each process on a node of its own.

The job restarts itself (`slurm_script`), so nothing is lost while no launcher follows it. What has
become of it is told by the results that it writes, and without them by SLURM.
"""

import asyncio
import pathlib
import time

from .exits import FINAL, ExitClass
from .hosts import ThisMachine
from .record import Record
from .scheduled import JobState
from .slurm_queue import Queue, run
from .slurm_script import folder_of, mark_of, script
from .spec import RunSpec
from .supervisor import secret_values

_CLASS_OF_STATE = {
    "CANCELLED": ExitClass.STOPPED,
    "OUT_OF_MEMORY": ExitClass.KILLED,
    "TIMEOUT": ExitClass.KILLED,
    "PREEMPTED": ExitClass.PREEMPTED,
}
_MISSING_SECONDS = 10.0  # a job that ends may be in no list for a moment


class SlurmScheduler:
    """sbatch, squeue, scontrol and scancel, on a machine that has them."""

    def __init__(self, spec: RunSpec, queue: Queue):
        self._spec, self._queue = spec, queue
        self._folder = pathlib.Path(folder_of(spec))
        self._missing_since: float | None = None

    async def submit(self, record: Record, attempt: int) -> str:
        """Hands the job over, unless it was before; returns its number."""
        secret_values(self._spec)  # sbatch takes this environment along
        mark = mark_of(self._spec)
        for queued in await self._queue.now():
            if queued.comment == mark:
                return queued.job
        if results(self._folder):
            return mark  # it has left the queue, and its number with it
        return await hand_over(write_script(self._spec), self._queue)

    async def state(self, record: Record, job: str) -> JobState:
        """By the results that the job wrote; without them, by what SLURM says."""
        found = {f"{q.state} ({q.reason})".lower() for q in await self._queue.lately() if q.of(job)}
        if found:
            self._missing_since = None
            return JobState(", ".join(sorted(found)))
        codes = results(self._folder)
        if codes:
            return _judged(codes)
        # The job has left the queue without a result: cancelled, or its node is gone for good.
        self._missing_since = self._missing_since or time.monotonic()
        if time.monotonic() - self._missing_since < _MISSING_SECONDS:
            return JobState("ending")
        said = await ThisMachine().run(["scontrol", "--oneliner", "show", "job", job])
        fields = dict(w.split("=", 1) for w in said.output.decode().split() if "=" in w)
        name = fields.get("JobState", "GONE")
        return JobState(f"SLURM says {name}", _CLASS_OF_STATE.get(name, ExitClass.LOST))

    async def new_log(self, record: Record, job: str) -> list[str]:
        """What was added to the job's logs; copied into the record."""
        lines = []
        for i, path in enumerate(sorted(self._folder.glob("job*.log"))):
            copy = record.log(1, i)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "rb") as source, open(copy, "ab") as target:
                source.seek(target.seek(0, 2))
                text = source.read()
                whole = text[: text.rfind(b"\n") + 1]
                target.write(whole)
            lines += whole.decode(errors="replace").splitlines()
        return lines

    async def cancel(self, record: Record, job: str, grace: float) -> None:
        """SIGTERM to all processes, a period of grace, then the end of the job."""
        (self._folder / "stop").touch()
        await ThisMachine().run(["scancel", "--state=PENDING", job])
        if grace:
            await ThisMachine().run(["scancel", "--signal=TERM", job])
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and not results(self._folder):
            if not any(queued.of(job) for queued in await self._queue.lately()):
                break
            await asyncio.sleep(0.5)
        await ThisMachine().run(["scancel", job])


def write_script(spec: RunSpec) -> pathlib.Path:
    """Writes the job's script into its folder."""
    path = pathlib.Path(folder_of(spec)) / "job.sh"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(script(spec))
    return path


async def hand_over(path: pathlib.Path, queue: Queue) -> str:
    """Gives a script to SLURM; returns the job's number."""
    said = await run("sbatch", "--parsable", str(path))
    queue.forget()
    return said.strip().split(";")[0]


def results(folder: pathlib.Path) -> set[int]:
    """The codes that a job's script has ended with for good; of an array, of all that are over."""
    texts = [path.read_text().strip() for path in folder.glob("**/result")]
    return {int(text) for text in texts if text.isdigit()}


def _judged(codes: set[int]) -> JobState:
    """Of an array, the worst."""
    if codes == {0}:
        return JobState("every process ended well", ExitClass.DONE)
    for final in FINAL:
        if final.value in codes:
            return JobState(f"a process ended with code {final.value}", final)
    if 130 in codes:
        return JobState("it was stopped", ExitClass.STOPPED)
    return JobState("the budget of restarts is used up", ExitClass.CRASHED)
