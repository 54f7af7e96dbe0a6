"""Running a sweep: open trials first, then new ones, so many at a time, until all are over."""

import asyncio
import signal
from collections.abc import Callable, Sequence

from unclip_jax.config.sweeps import Sweep
from unclip_jax.errors import UserError
from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.begin import begin
from unclip_jax.launch.exits import ExitClass
from unclip_jax.launch.record import Record
from unclip_jax.launch.spec import RunSpec
from unclip_jax.sweeps import measure
from unclip_jax.sweeps.host_groups import Hosts, free_group
from unclip_jax.sweeps.prune import hopeless
from unclip_jax.sweeps.suggest import ADAPTIVE, Nothing, suggest
from unclip_jax.sweeps.trials import DONE, FAILED, OPEN, PRUNED, SweepFolder, Trial

POLL_SECONDS = 0.2
PRUNE_SECONDS = 2.0
LARGEST_BATCH = 500  # trials that a queue is given; clusters take arrays of 1000 by default

Launch = Callable[[Trial, Hosts], tuple[RunSpec, bytes]]
Show = Callable[[str], None]


def _under_way(record: Record) -> bool:
    """Whether the run was begun and not ended: its processes may be on their hosts."""
    return record.exists and record.state.phase != "over"


def _settled(trial: Trial, record: Record) -> bool:
    """Whether the trial's run is over, and only its result was not written yet."""
    if not record.exists or record.state.phase != "over":
        return False
    return trial.pruned or record.state.result != ExitClass.STOPPED.name


def batch(sweep: Sweep, backend: str) -> int:
    """How many trials are handed to a queue together; 0 if they are started one by one."""
    known = sweep.space is None or sweep.space.search not in ADAPTIVE
    return LARGEST_BATCH if known and BACKENDS[backend].together is not None else 0


class Driver:
    """One sweep in one folder, whose lock the caller holds."""

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        launch: Launch,
        *,
        backend: str,
        concurrency: int,
        groups: Sequence[Hosts],
        seed: int,
        grace: float,
        show: Show,
    ):
        self._sweep, self._folder, self._launch = sweep, folder, launch
        self._backend, self._groups = backend, groups
        self._concurrency, self._seed, self._grace, self._show = concurrency, seed, grace, show
        self._running: dict[str, tuple[Record, asyncio.Task[None]]] = {}
        self._stopping = False
        self._left = {  # by an earlier driver that was killed
            trial.id
            for trial in folder.trials()
            if trial.status == OPEN and _under_way(self._record_of(trial))
        }

    async def run(self) -> bool:
        """Whether all trials are over; False if a signal stopped the sweep on the way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        pruned_at = loop.time()
        try:
            while True:
                left = await self._fill()
                if not self._running:
                    return not left
                tasks = [task for _, task in self._running.values()]
                await asyncio.wait(tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._collect()
                if self._sweep.pruning and loop.time() - pruned_at > PRUNE_SECONDS:
                    pruned_at = loop.time()
                    self._prune()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _fill(self) -> bool:
        """Starts as many trials as may run; whether any is left to start later."""
        size = batch(self._sweep, self._backend)
        if size and self._running:  # the next array begins when this one is over
            return True
        room = size or self._concurrency
        chosen: list[tuple[Trial, Hosts]] = []
        while not self._stopping and len(self._running) + len(chosen) < room:
            found = self._next([trial for trial, _ in chosen])
            if isinstance(found, Nothing):
                await self._start(chosen)
                return found is Nothing.NOW
            hosts = self._hosts(found, [hosts for _, hosts in chosen])
            if hosts is None:  # until a trial that still has its hosts of an earlier call is over
                break
            chosen.append((found, hosts))
        await self._start(chosen)
        return True

    def _hosts(self, trial: Trial, chosen: Sequence[Hosts]) -> Hosts | None:
        """Those that its run has had so far and may still be on, else a free group's."""
        record = self._record_of(trial)
        if _under_way(record):
            return record.spec.hosts
        running = (record.spec.hosts for record, _ in self._running.values())
        return free_group(self._groups, (*running, *chosen))

    def _next(self, chosen: Sequence[Trial]) -> Trial | Nothing:
        """An open trial that is neither running nor chosen, or else a new one."""
        trials = self._folder.trials()
        busy = {*self._running, *(trial.id for trial in chosen)}
        waiting = [trial for trial in trials if trial.status == OPEN and trial.id not in busy]
        if waiting:  # first those whose processes may be on their hosts still
            return min(waiting, key=lambda trial: trial.id not in self._left)
        found = suggest(self._sweep, trials, self._seed)
        return found if isinstance(found, Nothing) else self._folder.begin(found)

    async def _start(self, chosen: Sequence[tuple[Trial, Hosts]]) -> None:
        records = [self._begun(trial, hosts) for trial, hosts in chosen]
        together = BACKENDS[self._backend].together
        fresh = [record for record in records if record.state.phase == "new"]
        if together is not None and len(fresh) > 1:
            at_once = max(1, self._concurrency - (len(records) - len(fresh)))
            for record, job in zip(fresh, await together.submit(fresh, at_once), strict=True):
                record.change(phase="running", job=job)
        for (trial, _), record in zip(chosen, records, strict=True):
            settings = " ".join(f"{name}={value}" for name, value in trial.overrides.items())
            self._show(f"sweep: trial {trial.number} ({trial.id}): {settings}")
            task = asyncio.create_task(self._supervise(trial, record))
            self._running[trial.id] = (record, task)
            if self._stopping:  # a signal came while they were handed over
                record.ask_to_stop(self._grace)

    def _record_of(self, trial: Trial) -> Record:
        return Record(self._folder.path / "launch", trial.run_name)

    def _begun(self, trial: Trial, hosts: Hosts) -> Record:
        """The launcher's record of a trial, begun if it was not, with its lock taken."""
        spec, packed = self._launch(trial, hosts)
        record = self._record_of(trial)
        if not record.acquire():
            raise UserError(f"trial {trial.id} has a launcher already: stop that first")
        if not _settled(trial, record):
            begin(record, spec, packed)
            if trial.pruned:
                record.ask_to_stop(0.0)
        return record

    async def _supervise(self, trial: Trial, record: Record) -> None:
        with open(trial.folder / "launch.log", "a", buffering=1) as log:
            kind = await BACKENDS[record.spec.backend].supervise(
                record, lambda line: print(line, file=log)
            )
        record.release()
        if kind is ExitClass.STOPPED and trial.pruned:
            self._finish(trial, PRUNED, measure.value(self._sweep.objective, trial.out), "")
        elif kind is ExitClass.STOPPED and self._stopping:
            self._show(f"sweep: trial {trial.number} is interrupted, its state is saved")
        elif kind is ExitClass.DONE:
            value = measure.value(self._sweep.objective, trial.out)
            if value is None:
                name, file = self._sweep.objective.name, self._sweep.objective.file
                self._finish(trial, FAILED, None, f"no finite {name} in {trial.out / file}")
            else:
                self._finish(trial, DONE, value, "")
        else:
            where = trial.folder / "launch.log"
            self._finish(trial, FAILED, None, f"{record.state.text}; see {where}")

    def _finish(self, trial: Trial, status: str, value: float | None, text: str) -> None:
        trial.finish(status, value, text)
        what = text if value is None else f"{self._sweep.objective.name}={value:.6g}"
        self._show(f"sweep: trial {trial.number} {status}: {what}")

    def _collect(self) -> None:
        for name, (_, task) in list(self._running.items()):
            if task.done():
                del self._running[name]
                task.result()  # a defect of ours, or a UserError, comes up here

    def _prune(self) -> None:
        trials = self._folder.trials()
        curves = {t.id: measure.curve(self._sweep.objective, t.out) for t in trials}
        for trial in trials:
            if trial.id not in self._running or trial.pruned:
                continue
            if hopeless(self._sweep, trial, trials, curves):
                trial.prune(max(curves[trial.id]))
                self._running[trial.id][0].ask_to_stop(self._grace)

    def _stop(self) -> None:
        """The first signal lets running trials save their state; the second does not."""
        grace = 0.0 if self._stopping else self._grace
        self._stopping = True
        for record, _ in self._running.values():
            record.ask_to_stop(grace)
