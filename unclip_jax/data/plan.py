"""Where a run starts and in which order it goes on: a position and an order from what was asked."""

from dataclasses import replace

from unclip_jax.data.dataset import Dataset
from unclip_jax.data.mixture import Mixing, Mixture, MixtureOrder, Segment
from unclip_jax.data.order import Layout, Order
from unclip_jax.data.position import DataPosition
from unclip_jax.errors import UserError

MAX_LANES = 256
FULL_SHUFFLE_LIMIT = 2_000_000  # samples; above, tables of the full shuffle grow past 100 MB
CHUNK, WINDOW = 64, 1024


def default_layout(dataset: Dataset, batch_size: int) -> Layout:
    """Returns the order of a new run: a full shuffle of a small local set, else chunks."""
    lanes = max(d for d in range(1, min(batch_size, MAX_LANES) + 1) if batch_size % d == 0)
    small = len(dataset) < lanes * WINDOW
    if small or (dataset.is_local and len(dataset) <= FULL_SHUFFLE_LIMIT):
        return Layout(lanes)
    return Layout(lanes, CHUNK, WINDOW)


def make_plan(
    data: Dataset | Mixture,
    batch_size: int,
    seed: int,
    position: DataPosition | None,
    layout: Layout | None,
) -> tuple[Dataset, Order | MixtureOrder, DataPosition]:
    """Returns (samples, their order, where to start).

    Raises UserError if the position belongs to other data, another seed or another layout.
    """
    dataset = data.dataset if isinstance(data, Mixture) else data
    if position is None:
        layout = layout or default_layout(dataset, batch_size)
        position = DataPosition(0, seed, layout, data.fingerprint)
    else:
        _check(position, data, seed, layout)
    if isinstance(data, Mixture):
        mixing = _mixing(data, batch_size, position)
        counts = tuple(part.counts for part in data.datasets)
        order = MixtureOrder(counts, mixing, position.layout.lanes, seed)
        return dataset, order, replace(position, mixing=mixing)
    return dataset, Order(dataset.counts, position.layout, seed), position


def _mixing(mixture: Mixture, batch_size: int, position: DataPosition) -> Mixing:
    """Returns the mixing up to now; other weights than before begin a new segment here."""
    now = position.examples // position.layout.lanes
    if position.mixing is None:
        lanes = position.layout.lanes
        layouts = [default_layout(part, batch_size) for part in mixture.datasets]
        return Mixing(
            (Segment(0, mixture.shares),), tuple(replace(own, lanes=lanes) for own in layouts)
        )
    segments = position.mixing.segments
    if segments[-1].shares != mixture.shares:
        kept = tuple(segment for segment in segments if segment.start < now)
        segments = (*kept, Segment(now, mixture.shares))
    return replace(position.mixing, segments=segments)


def _check(
    position: DataPosition, data: Dataset | Mixture, seed: int, layout: Layout | None
) -> None:
    if position.fingerprint != data.fingerprint:
        raise UserError(
            f"the data set has changed since the checkpoint (fingerprint {data.fingerprint[:12]}"
            f", was {position.fingerprint[:12]}); use the same shards, or start from no position"
        )
    if position.seed != seed:
        raise UserError(f"the checkpoint's data seed is {position.seed}, not {seed}; keep the seed")
    if layout is not None and layout != position.layout:
        raise UserError(f"the checkpoint's data layout is {position.layout}, not {layout}; keep it")
