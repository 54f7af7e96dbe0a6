"""Many runs that need the same, such as a sweep's trials, as one SLURM array: a task for each.

A task runs the script that its run would have as a job of its own, and requeues itself as
NUMBER_INDEX; from then on nothing knows of the array. Which task is whose is noted before the array
is handed over, so that a launcher that is killed at any moment finds it again.
"""

import hashlib
import json
import pathlib
import shlex
from collections.abc import Sequence

from .record import Record
from .slurm import hand_over, results, write_script
from .slurm_queue import Queue
from .slurm_script import folder_of, head, mark_of, options
from .spec import RunSpec
from .supervisor import secret_values


class Array:
    """How SLURM takes many runs together."""

    def __init__(self, queue: Queue):
        self._queue = queue

    async def submit(self, records: Sequence[Record], at_once: int) -> list[str]:
        """Hands over those that were not before, `at_once` of which run; returns each one's job."""
        specs = [record.spec for record in records]
        secret_values(specs[0])
        queued = {(q.comment, q.job.rpartition("_")[2]): q.job for q in await self._queue.now()}
        jobs: dict[str, str] = {}
        for spec in specs:
            mark, index = _task_of(spec)
            job = queued.get((mark, index)) or (results(_folder(spec)) and f"{mark}_{index}")
            if job:
                jobs[mark_of(spec)] = job
        left = [spec for spec in specs if mark_of(spec) not in jobs]
        if left:
            number = await hand_over(_prepare(left, at_once), self._queue)
            jobs |= {mark_of(spec): f"{number}_{index}" for index, spec in enumerate(left)}
        return [jobs[mark_of(spec)] for spec in specs]

    def plan(self, specs: Sequence[RunSpec], at_once: int) -> str:
        """What `--dry-run` prints: the array's script."""
        folder = _array_folder(specs)
        text = script(specs, at_once, folder)
        return f"# sbatch --parsable {folder}/array.sh, which is:\n{text}"


def script(specs: Sequence[RunSpec], at_once: int, folder: pathlib.Path) -> str:
    """The array's script: each task becomes the script of its run."""
    first = specs[0]
    told = options(first, output=f"{folder}/task.%a.log", comment=folder.name)
    told.append(f"--array=0-{len(specs) - 1}%{at_once}")
    which = f'sed -n "$(( SLURM_ARRAY_TASK_ID + 1 ))p" {shlex.quote(str(folder / "folders"))}'
    lines = [
        *head(told),
        f"folder=$({which})",
        'exec bash "$folder/job.sh" >> "$folder/job.log" 2>&1',
    ]
    return "\n".join(lines) + "\n"


def _prepare(specs: Sequence[RunSpec], at_once: int) -> pathlib.Path:
    """Writes all that the tasks need; returns the array's script."""
    folder = _array_folder(specs)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "folders").write_text("".join(f"{folder_of(spec)}\n" for spec in specs))
    for index, spec in enumerate(specs):
        write_script(spec)
        (_folder(spec) / "array.json").write_text(json.dumps([folder.name, str(index)]))
    path = folder / "array.sh"
    path.write_text(script(specs, at_once, folder))
    return path


def _array_folder(specs: Sequence[RunSpec]) -> pathlib.Path:
    """Beside those of the runs, named by who they are; its name is the array's mark."""
    marks = " ".join(mark_of(spec) for spec in specs)
    return _folder(specs[0]).parent / f"array-{hashlib.sha256(marks.encode()).hexdigest()[:12]}"


def _task_of(spec: RunSpec) -> tuple[str, str]:
    """(mark of the array, index) that were noted for a run; empty if none were."""
    path = _folder(spec) / "array.json"
    mark, index = json.loads(path.read_text()) if path.exists() else ("", "")
    return mark, index


def _folder(spec: RunSpec) -> pathlib.Path:
    return pathlib.Path(folder_of(spec))
