"""The backends, by name. A new one is one module and one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from . import (
    commands,
    dry_run,
    gcp_request,
    gcp_tpu,
    jobset,
    scheduled,
    skypilot,
    slurm,
    slurm_array,
    slurm_script,
)
from .attempt import Show
from .exits import ExitClass
from .hosts import HostLost
from .place import GivenHosts, Local, Place
from .record import Record
from .slurm_queue import Queue
from .spec import RunSpec
from .supervisor import supervise


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How runs of one backend are checked, shown, looked after and cleared away.

    Attributes:
      plan: exactly what will be run, sent or applied.
      place: of its hosts, where we start processes ourselves.
      scheduler: of its jobs, where something else does.
      together: of many runs that need the same, where a scheduler takes them as one job.
      check: refuses a spec that can't be.
      processes: how many there are by default, from the backend's settings.
      remote: whether processes see another file system than the launcher.
      installs: whether the launcher pushes code and makes a Python environment there.
      python: the interpreter there, if it makes none.
      extras: of unclip_jax, for the environment that is made there.
      group: its own settings in the spec.
    """

    plan: Callable[[RunSpec, bytes], str]
    place: Callable[[RunSpec], Place] | None = None
    scheduler: Callable[[RunSpec], scheduled.Scheduler] | None = None
    together: slurm_array.Array | None = None
    check: Callable[[RunSpec], None] = lambda spec: None
    processes: Callable[[dict[str, str]], int] = lambda settings: 1
    remote: bool = True
    installs: bool = True
    python: str = ""
    extras: str = ""
    group: str = ""

    async def supervise(self, record: Record, show: Show) -> ExitClass:
        """Looks after a run until it is over, and gives back what was provisioned."""
        spec = record.spec
        if self.scheduler is not None:
            return await scheduled.supervise(record, self.scheduler(spec), show)
        assert self.place is not None
        place = self.place(spec)
        kind = await supervise(record, place, show)
        await place.release(record, show)
        return kind

    async def clear(self, record: Record, show: Show) -> list[str]:
        """Removes what a run that is over left where it ran; returns what could not be removed."""
        if self.place is None:
            return []
        place = self.place(record.spec)
        await place.release(record, show)
        failures = []
        for host in () if place.rented else record.state.hosts:
            connection = place.connect(host)
            try:
                await connection.run(commands.remove(record.spec, host).argv)
            except HostLost as lost:
                failures.append(str(lost))
            finally:
                await connection.close()
        return failures


_QUEUE = Queue()

BACKENDS = {
    "local": Backend(plan=dry_run.on_hosts, place=lambda spec: Local(), remote=False),
    "ssh": Backend(plan=dry_run.on_hosts, place=GivenHosts),
    "slurm": Backend(
        plan=slurm_script.plan,
        scheduler=lambda spec: slurm.SlurmScheduler(spec, _QUEUE),
        together=slurm_array.Array(_QUEUE),
        check=slurm_script.check,
        remote=False,
        group="slurm",
    ),
    "gcp-tpu": Backend(
        plan=gcp_request.plan,
        place=gcp_tpu.TpuPlace,
        check=gcp_request.check,
        processes=lambda spec: gcp_request.hosts_of(spec.get("accelerator", "")),
        extras="tpu,gcs",
        group="tpu",
    ),
    "gke": Backend(
        plan=jobset.plan,
        scheduler=jobset.GkeScheduler,
        check=jobset.check,
        installs=False,
        python="python",
        group="gke",
    ),
    "skypilot": Backend(
        plan=skypilot.plan,
        scheduler=skypilot.Export,
        check=skypilot.check,
        installs=False,
        python="python",
        group="skypilot",
    ),
}
