"""Drawing many pictures in parallel, each into its own file.

A picture's file appears under its name only when it is complete, so a build that was stopped keeps
what it has drawn and goes on from there. Processes, not threads: SVG drawing shares locks
(measured: two threads 1.3 times as fast as one, two processes 2.0 times).
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from unclip_jax.data.emoji.render import render
from unclip_jax.errors import UserError

_CHUNK = 32

Job = tuple[Path, bytes]
Progress = Callable[[str, int, int], None]


def draw_all(jobs: Sequence[Job], size: int, processes: int, progress: Progress) -> None:
    """Draws every (file, source) whose file does not exist yet.

    Args:
      jobs: where each picture goes and what it is drawn from.
      size: side of the pictures in pixels.
      processes: 1 draws in this process; more start that many, which import this module afresh.
      progress: told ("draw", pictures done, pictures in all).

    Raises:
      UserError: a picture cannot be drawn.
    """
    missing = [job for job in jobs if not job[0].exists()]
    done = len(jobs) - len(missing)
    progress("draw", done, len(jobs))
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    for count in _run(chunks, size, min(processes, len(chunks))):
        done += count
        progress("draw", done, len(jobs))


def _run(chunks: Sequence[Sequence[Job]], size: int, processes: int) -> Iterator[int]:
    if processes <= 1:
        yield from (_draw_chunk(chunk, size) for chunk in chunks)
        return
    # spawn: a forked libvips (or JAX) keeps the locks of threads that no longer exist.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_use_one_thread)
    try:
        yield from executor.map(_draw_chunk, chunks, [size] * len(chunks))
    finally:
        executor.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read when libvips is loaded, which render does later


def _draw_chunk(chunk: Sequence[Job], size: int) -> int:
    for path, source in chunk:
        try:
            picture = render(source, size)
        except ValueError as error:
            raise UserError(f"{path.stem}: {error}") from error
        partial = path.with_suffix(".partial")
        partial.write_bytes(picture)
        os.replace(partial, path)
    return len(chunk)
