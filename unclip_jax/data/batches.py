"""The loader's two entries: endless training batches from a position, and one exact pass.

Both give the same global batches on any number of processes: each asks for its own rows.
"""

from collections.abc import Iterator

import numpy as np

from unclip_jax.data import engine
from unclip_jax.data.assembly import Arrays, Assembler
from unclip_jax.data.bad_samples import BadSamples
from unclip_jax.data.dataset import Dataset
from unclip_jax.data.mixture import Mixture
from unclip_jax.data.order import Layout
from unclip_jax.data.plan import make_plan
from unclip_jax.data.position import DataPosition
from unclip_jax.data.report import Meter
from unclip_jax.data.rows import Rows, lanes_of
from unclip_jax.data.tokens import token_table


def train_batches(
    data: Dataset | Mixture,
    batch_size: int,
    *,
    seed: int,
    position: DataPosition | None = None,
    layout: Layout | None = None,
    workers: int = 0,
    threads: int | None = None,
    rows: Rows | None = None,
    max_bad_fraction: float = 0.01,
    quarantine: str | None = None,
    patient: bool = False,
) -> "TrainBatches":
    """Starts endless training batches, at the beginning or at a saved position.

    Args:
      data: what to read: a data set, or several by weight.
      batch_size: global batch B; a multiple of the layout's lanes.
      seed: of the order, crops and flips.
      position: where to go on; None begins.
      layout: the order's shape; None is that of `position`, or `default_layout`. The parts of a
        mixture have their own default layouts with these lanes.
      workers: processes that read and decode; 0 uses threads of this one. Runs without images
        always use threads.
      threads: of this process, or of all workers together; default min(8, cores).
      rows: sorted rows of the global batch that this process reads, in whole lanes; None is all.
        See `device.needed_rows` and `host_rows`.
      max_bad_fraction: more bad samples than this in 10,000 rows raise UserError.
      quarantine: JSON-lines file that gets every bad sample.
      patient: too many bad samples raise nothing: whoever reads asks for `bad.too_many`, so that
        several processes can stop together.

    Raises:
      UserError: the position belongs to other data, another seed, or does not fit the batch.
    """
    dataset, order, position = make_plan(data, batch_size, seed, position, layout)
    lanes = position.layout.lanes
    mine = lanes_of(np.arange(batch_size) if rows is None else rows, batch_size, lanes)
    reads_images = bool(dataset.fields.image_sizes)
    workers = workers if reads_images else 0
    per_lane = batch_size // lanes
    per_step = engine.elements_per_step(len(mine), per_lane, workers) if reads_images else 1
    width = len(mine) // per_step
    groups = [mine[i : i + width] for i in range(0, len(mine), width)]
    assembler = Assembler(dataset, seed, token_table(dataset))
    first = position.examples // lanes
    source = engine.TrainSource(assembler, order, first, per_lane, groups)
    steps = engine.run(source, per_step, workers=workers, threads=threads if reads_images else 1)
    bad = BadSamples(max_bad_fraction, quarantine=quarantine)
    return TrainBatches(steps, position, batch_size, bad, patient)


class TrainBatches:
    """Iterates over (batch, position after it); `bad` counts what was substituted on this host."""

    def __init__(
        self,
        steps: engine.Steps,
        position: DataPosition,
        batch_size: int,
        bad: BadSamples,
        patient: bool,
    ):
        self._steps = steps
        self._batch_size = batch_size
        self._patient = patient
        self.position = position
        self.bad = bad
        self._meter = Meter()

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> tuple[Arrays, DataPosition]:
        arrays, report = next(self._steps)
        rows = len(next(iter(arrays.values())))
        self.bad.record(report.events, rows)
        if not self._patient:
            self.bad.check()
        self._meter.add(report, rows)
        self.position = self.position.advance(self._batch_size)
        return arrays, self.position

    def metrics(self) -> dict[str, float]:
        """Returns figures of this process: times and rates since the last call, bad samples."""
        return self._meter.take() | self.bad.metrics()

    def close(self) -> None:
        """Stops threads and worker processes."""
        self._steps.close()


def eval_batches(
    dataset: Dataset,
    batch_size: int,
    *,
    workers: int = 0,
    threads: int | None = None,
    rows: Rows | None = None,
    bad: BadSamples | None = None,
) -> Iterator[Arrays]:
    """Yields every sample once, in the order of the shards, in ceil(N / B) equal batches.

    Each batch has "valid" bool [rows]: False behind the last sample, and for samples that cannot be
    used (their rows are zero). `rows` as in `train_batches`; `bad` counts what cannot be used.
    """
    rows = np.arange(batch_size) if rows is None else rows
    per_step = engine.elements_per_step(len(rows), 1, workers)
    source = engine.ExactSource(Assembler(dataset), batch_size, np.split(rows, per_step))
    steps = engine.run(source, per_step, workers=workers, threads=threads)
    try:
        for arrays, report in steps:
            if bad is not None:
                unusable = sum(event.is_bad for event in report.events)
                bad.record(report.events, int(arrays["valid"].sum()) + unusable)
                bad.check()
            yield arrays
    finally:
        steps.close()
