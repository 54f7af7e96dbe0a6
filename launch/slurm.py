"""SLURM: one job for the run, one task for each process on a node of its own.

The job judges its own ends: code 0 is done, 2, 65 and 74 are final, 75 is put back into the queue
for free, others as often as the budget allows; when a node fails SLURM itself does it (--requeue).
SIGTERM comes a grace period before the time limit, so a run longer than the limit saves itself and
goes on in the next slot.
"""

import asyncio
import pathlib
import shlex
import time

from unclip_jax.errors import UserError

from .commands import PROXIES, coordinator_port, run_folder
from .exits import FINAL, ExitClass
from .hosts import HostLost, ThisMachine
from .record import Record
from .scheduled import JobState, job_name
from .spec import RunSpec, Slurm
from .supervisor import secret_values

_CLASS_OF_STATE = {
    "CANCELLED": ExitClass.STOPPED,
    "OUT_OF_MEMORY": ExitClass.KILLED,
    "TIMEOUT": ExitClass.KILLED,
    "PREEMPTED": ExitClass.PREEMPTED,
}
_LIVE = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"}
_LIVE |= {"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "STAGE_OUT"}
_OPTIONS = (
    "partition",
    "account",
    "qos",
    "time",
    "gpus_per_node",
    "cpus_per_task",
    "mem",
    "constraint",
    "array",
)


def script(spec: RunSpec) -> str:
    """The job's script."""
    settings = spec.slurm or Slurm()
    folder = folder_of(spec)
    log = "job.%a.log" if settings.array else "job.log"
    head = [
        f"--job-name={job_name(spec)}",
        f"--comment={spec.name}-{spec.id}",
        f"--nodes={spec.processes}",
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        f"--output={folder}/{log}",
        f"--signal=TERM@{max(1, round(spec.limits.grace_seconds))}",
        *(
            f"--{name.replace('_', '-')}={getattr(settings, name)}"
            for name in _OPTIONS
            if getattr(settings, name)
        ),
    ]
    env = [f"export {shlex.quote(pair.split('=', 1)[0])}={_value(pair)}" for pair in spec.env]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in head), "set -u"]
    if spec.setup:
        lines.append(spec.setup)
    lines += [f"cd {shlex.quote(spec.cwd)}", *env, _START.strip(), _command(spec), _END.strip()]
    text = "\n".join(lines) + "\n"
    for name, value in {
        "@FOLDER@": shlex.quote(folder),
        "@RUN@": shlex.quote(spec.name),
        "@PORT@": str(coordinator_port(spec, 1)),
        "@COUNT@": str(spec.processes),
        "@PROXIES@": " ".join(PROXIES),
        "@BUDGET@": str(spec.restarts.budget),
    }.items():
        text = text.replace(name, value)
    return text


# Every attempt has another port, as one that was left open by the last would stand in its way.
_START = """
folder=@FOLDER@${SLURM_ARRAY_TASK_ID:+/$SLURM_ARRAY_TASK_ID}
export UNCLIP_RUN=@RUN@ PYTHONUNBUFFERED=1
export UNCLIP_ATTEMPT=$(( ${SLURM_RESTART_COUNT:-0} + 1 ))
if [ @COUNT@ -gt 1 ]; then
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  export UNCLIP_COORDINATOR=$first:$(( @PORT@ + UNCLIP_ATTEMPT % 100 )) UNCLIP_NUM_PROCESSES=@COUNT@
  unset @PROXIES@
fi
export UNCLIP_MARKS=$folder/$UNCLIP_ATTEMPT
rm -rf "$UNCLIP_MARKS"; mkdir -p "$UNCLIP_MARKS"
"""

_END = """
code=$?
codes() { cat "$UNCLIP_MARKS"/* 2>/dev/null; }
over() { echo "$1" > "$folder/result.tmp"; mv "$folder/result.tmp" "$folder/result"; exit "$1"; }
if [ $code -eq 0 ]; then over 0; fi
for final in 2 65 74; do if codes | grep -qx $final; then over $final; fi; done
if [ -e @FOLDER@/stop ]; then over 130; fi
# Saved and asked to stop (75), with those that others took along (69, 134, 143): free.
if ! codes | grep -qx 75 || codes | grep -qvxE '0|69|75|134|143'; then
  echo "$code" >> "$folder/counted"
  if [ "$(wc -l < "$folder/counted")" -gt @BUDGET@ ]; then over 1; fi
fi
echo "unclip: attempt $UNCLIP_ATTEMPT ended with code $code; back into the queue"
job=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
scontrol requeue "$job"
sleep 600
"""


def _command(spec: RunSpec) -> str:
    """srun of every process; each leaves its exit code in the attempt's folder."""
    words = [
        shlex.quote(word).replace("{array}", "'\"$SLURM_ARRAY_TASK_ID\"'") for word in spec.command
    ]
    one = "" if spec.processes == 1 else "export UNCLIP_PROCESS_ID=$SLURM_PROCID; "
    task = (
        f'trap : TERM; {one}"$@"; code=$?; echo $code > "$UNCLIP_MARKS/$SLURM_PROCID"; exit $code'
    )
    return (
        f"srun --kill-on-bad-exit=1 --label bash -c {shlex.quote(task)} unclip \\\n  "
        + " \\\n  ".join(words)
    )


def _value(pair: str) -> str:
    return shlex.quote(pair.split("=", 1)[1])


def folder_of(spec: RunSpec) -> str:
    """The job's folder, which all nodes see."""
    settings = spec.slurm or Slurm()
    return settings.folder or run_folder(spec)


def plan(spec: RunSpec, packed: bytes) -> str:
    """What `--dry-run` prints: the script and how it is handed over."""
    return f"# sbatch --parsable {folder_of(spec)}/job.sh, which is:\n{script(spec)}"


def check(spec: RunSpec) -> None:
    """Raises `UserError` for what can't be."""
    settings = spec.slurm or Slurm()
    if any("{array}" in word for word in spec.command) and not settings.array:
        raise UserError("{array} in the command needs --option slurm.array=0-7 or the like")
    if settings.array and not any("{array}" in word for word in spec.command):
        raise UserError("slurm.array: the command must hold {array}, or all runs are the same")


class SlurmScheduler:
    """sbatch, squeue, scontrol and scancel, on a machine that has them."""

    def __init__(self, spec: RunSpec):
        self._spec = spec
        self._folder = pathlib.Path(folder_of(spec))
        self._missing_since: float | None = None

    async def submit(self, record: Record, attempt: int) -> str:
        """Hands the job over, unless the queue has it already; returns its number."""
        secret_values(self._spec)  # sbatch takes this environment along
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = f"{self._spec.name}-{self._spec.id}"
        queue = await self._run("squeue", "--me", "--noheader", "--format=%A %k")
        for line in queue.splitlines():
            job, _, comment = line.strip().partition(" ")
            if comment == mark:
                return job
        path = self._folder / "job.sh"
        path.write_text(script(self._spec))
        return (await self._run("sbatch", "--parsable", str(path))).strip().split(";")[0]

    async def state(self, record: Record, job: str) -> JobState:
        """By the results that the job wrote; without them, by what SLURM says."""
        queue = await ThisMachine().run(
            ["squeue", "--noheader", f"--jobs={job}", "--format=%T (%r)"]
        )
        lines = [line for line in queue.output.decode().splitlines() if line.strip()]
        if queue.code and b"Invalid job id" not in queue.errors:
            raise HostLost(queue.errors.decode(errors="replace").strip())
        if any(line.split()[0] in _LIVE for line in lines):
            self._missing_since = None
            return JobState(", ".join(sorted({line.lower() for line in lines})))
        results = [path.read_text().strip() for path in self._folder.glob("**/result")]
        if results:
            return _judged(results)
        # The job has left the queue without a result: cancelled, or its node is gone for good.
        self._missing_since = self._missing_since or time.monotonic()
        if time.monotonic() - self._missing_since < 10:
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
        if grace:
            await ThisMachine().run(["scancel", "--signal=TERM", job])
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and not list(self._folder.glob("**/result")):
            await asyncio.sleep(0.5)
        await ThisMachine().run(["scancel", job])

    async def _run(self, *argv: str) -> str:
        try:
            ran = await ThisMachine().run(argv)
        except FileNotFoundError:
            raise UserError(f"no {argv[0]} here: launch from a machine that has SLURM") from None
        if ran.code:
            raise UserError(f"{argv[0]}: {ran.errors.decode(errors='replace').strip()}")
        return ran.output.decode()


def _judged(results: list[str]) -> JobState:
    """Of an array, the worst."""
    codes = sorted({int(result) for result in results if result.isdigit()})
    if codes == [0]:
        return JobState("every process ended well", ExitClass.DONE)
    for final in FINAL:
        if final.value in codes:
            return JobState(f"a process ended with code {final.value}", final)
    if 130 in codes:
        return JobState("it was stopped", ExitClass.STOPPED)
    return JobState("the budget of restarts is used up", ExitClass.CRASHED)
