"""Running a sweep: open trials first, then new ones, so many at a time, until all are over."""

import asyncio
import signal
from collections.abc import Callable

from unclip_jax.config.sweeps import Sweep
from unclip_jax.errors import UserError
from unclip_jax.launch.backends import BACKENDS
from unclip_jax.launch.begin import begin
from unclip_jax.launch.exits import ExitClass
from unclip_jax.launch.record import Record
from unclip_jax.launch.spec import RunSpec
from unclip_jax.sweeps import measure
from unclip_jax.sweeps.prune import hopeless
from unclip_jax.sweeps.suggest import Nothing, suggest
from unclip_jax.sweeps.trials import DONE, FAILED, OPEN, PRUNED, SweepFolder, Trial

POLL_SECONDS = 0.2
PRUNE_SECONDS = 2.0

Launch = Callable[[Trial], tuple[RunSpec, bytes]]
Show = Callable[[str], None]


def _settled(trial: Trial, record: Record) -> bool:
    """Whether the trial's run is over, and only its result was not written yet."""
    if not record.exists or record.state.phase != "over":
        return False
    return trial.pruned or record.state.result != ExitClass.STOPPED.name


class Driver:
    """One sweep in one folder, whose lock the caller holds."""

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        launch: Launch,
        *,
        concurrency: int,
        seed: int,
        grace: float,
        show: Show,
    ):
        self._sweep, self._folder, self._launch = sweep, folder, launch
        self._concurrency, self._seed, self._grace, self._show = concurrency, seed, grace, show
        self._running: dict[str, tuple[Record, asyncio.Task[None]]] = {}
        self._stopping = False

    async def run(self) -> bool:
        """Whether all trials are over; False if a signal stopped the sweep on the way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        pruned_at = loop.time()
        try:
            while True:
                left = self._fill()
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

    def _fill(self) -> bool:
        """Starts as many trials as may run; whether any is left to start later."""
        while True:
            if self._stopping:
                return True
            trials = self._folder.trials()
            waiting = [t for t in trials if t.status == OPEN and t.id not in self._running]
            if len(self._running) >= self._concurrency:
                return True
            if waiting:
                self._start(waiting[0])
                continue
            found = suggest(self._sweep, trials, self._seed)
            if isinstance(found, Nothing):
                return found is Nothing.NOW
            self._start(self._folder.begin(found))

    def _start(self, trial: Trial) -> None:
        spec, packed = self._launch(trial)
        record = Record(self._folder.path / "launch", spec.name)
        if not record.acquire():
            raise UserError(f"trial {trial.id} has a launcher already: stop that first")
        if not _settled(trial, record):
            begin(record, spec, packed)
            if trial.pruned:
                record.ask_to_stop(0.0)
        settings = " ".join(f"{name}={value}" for name, value in trial.overrides.items())
        self._show(f"sweep: trial {trial.number} ({trial.id}): {settings}")
        task = asyncio.create_task(self._supervise(trial, record))
        self._running[trial.id] = (record, task)

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
