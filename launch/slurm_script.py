"""The script of a SLURM job, which judges its own ends.

Code 0 is done, 2, 65 and 74 are final, 75 is put back into the queue for free, others as often as
the budget allows; when a node fails SLURM itself does it (--requeue). SIGTERM comes a grace period
before the time limit, so a run longer than the limit saves itself and goes on in the next slot.
"""

import shlex
from collections.abc import Sequence

from unclip_jax.errors import UserError

from .commands import PROXIES, coordinator_port, run_folder
from .scheduled import job_name
from .spec import RunSpec, Slurm

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


def options(spec: RunSpec, *, output: str, comment: str) -> list[str]:
    """How sbatch is told what a run needs."""
    settings = spec.slurm or Slurm()
    return [
        f"--job-name={job_name(spec)}",
        f"--comment={comment}",
        f"--nodes={spec.processes}",
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        f"--output={output}",
        f"--signal=TERM@{max(1, round(spec.limits.grace_seconds))}",
        *(
            f"--{name.replace('_', '-')}={getattr(settings, name)}"
            for name in _OPTIONS
            if getattr(settings, name)
        ),
    ]


def head(options: Sequence[str]) -> list[str]:
    """The first lines of a script, with sbatch's options."""
    return ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "set -u"]


def script(spec: RunSpec) -> str:
    """The job's script."""
    settings = spec.slurm or Slurm()
    folder = folder_of(spec)
    log = "job.%a.log" if settings.array else "job.log"
    env = [f"export {shlex.quote(pair.split('=', 1)[0])}={_value(pair)}" for pair in spec.env]
    lines = head(options(spec, output=f"{folder}/{log}", comment=mark_of(spec)))
    if spec.setup:
        lines.append(spec.setup)
    lines += [f"cd {shlex.quote(spec.cwd)}", *env, _START.strip(), _command(spec), _END.strip()]
    text = "\n".join(lines) + "\n"
    for name, value in {
        "@FOLDER@": shlex.quote(folder),
        "@INDEX@": "/$SLURM_ARRAY_TASK_ID" if settings.array else "",
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
folder=@FOLDER@@INDEX@
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
    return f"{settings.folder}/{mark_of(spec)}" if settings.folder else run_folder(spec)


def mark_of(spec: RunSpec) -> str:
    """What tells this run's job from all others in the queue."""
    return f"{spec.name}-{spec.id}"


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
