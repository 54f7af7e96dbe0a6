"""Several data sets in one run, by weight: still a pure function of (seed, position).

Weights are whole shares of 1000. Each lane walks a fixed schedule of 1000 places in which data set
d comes shares[d] times, spread evenly (after k places it came shares[d]·k/1000 times, give or take
one); lanes start at different places of it. How often d came before a position is a table look-up,
and that count is the position in d's own order. A change of weights in mid-run is a new segment:
the schedule changes from that position on, and each data set goes on where it was.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.dataset import Dataset, concatenate
from unclip_jax.data.order import Layout, Order, mix
from unclip_jax.errors import UserError

SHARES = 1000


@dataclass(frozen=True)
class Segment:
    """From lane position `start` on, data set d gets `shares[d]` of every 1000 places."""

    start: int
    shares: tuple[int, ...]


@dataclass(frozen=True)
class Mixing:
    """What a checkpoint keeps of a mixture: every weight change so far, and each set's layout."""

    segments: tuple[Segment, ...]
    layouts: tuple[Layout, ...]


class Mixture:
    """Data sets to be drawn from by weight.

    Attributes:
      names: of the data sets, in the order given.
      shares: of 1000, for each.
      datasets: the parts; `dataset`: all of them as one.
      fingerprint: digest of the parts' fingerprints.
    """

    def __init__(self, datasets: Mapping[str, Dataset], weights: Mapping[str, float]):
        """Raises UserError: names differ, a weight is not positive, or the fields differ."""
        if not datasets or set(datasets) != set(weights):
            raise UserError(f"mixture of {sorted(datasets)} has weights for {sorted(weights)}")
        self.names = tuple(datasets)
        self.datasets = tuple(datasets.values())
        self.shares = _shares({name: weights[name] for name in self.names})
        self.dataset = concatenate(self.datasets)
        parts = "".join(part.fingerprint for part in self.datasets)
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.dataset)


class MixtureOrder:
    """The interface of Order over several: (lane, position) -> (epoch, sample of the whole)."""

    def __init__(
        self, counts: tuple[NDArray[np.int64], ...], mixing: Mixing, lanes: int, seed: int
    ):
        self._arguments = (counts, mixing, lanes, seed)
        self._segments = mixing.segments
        self._lanes = lanes
        self._seed = seed
        self._orders = [
            Order(own, layout, mix(seed, number))
            for number, (own, layout) in enumerate(zip(counts, mixing.layouts, strict=True))
        ]
        sizes = [order.size for order in self._orders]
        self._firsts = np.cumsum(sizes) - sizes  # each set's first sample in the whole

    def __reduce__(self):
        return MixtureOrder, self._arguments

    def samples(self, lane: int, start: int, count: int) -> tuple[NDArray, NDArray]:
        """Returns (epochs [count], sample numbers [count]) of positions start … start + count."""
        drawn = np.array([self._drawn(lane, position) for position in range(start, start + count)])
        epochs, samples = np.empty((2, count), np.int64)
        before = self._counts_before(lane, start)
        for number in np.unique(drawn).tolist():
            here = drawn == number
            own = self._orders[number].samples(lane, int(before[number]), int(here.sum()))
            epochs[here], samples[here] = own[0], own[1] + self._firsts[number]
        return epochs, samples

    def substitute(self, lane: int, position: int, attempt: int) -> tuple[int, int]:
        """Returns (epoch, sample) to take instead, from the same data set."""
        number = self._drawn(lane, position)
        own = int(self._counts_before(lane, position)[number])
        epoch, sample = self._orders[number].substitute(lane, own, attempt)
        return epoch, sample + int(self._firsts[number])

    def _drawn(self, lane: int, position: int) -> int:
        """Returns the data set that a position is of."""
        segment = next(s for s in reversed(self._segments) if s.start <= position)
        schedule, _ = _schedule(segment.shares)
        return int(schedule[(position - segment.start + self._turn(lane)) % SHARES])

    def _counts_before(self, lane: int, position: int) -> NDArray[np.int64]:
        """Returns how often each data set came in this lane before a position."""
        counts = np.zeros(len(self._orders), np.int64)
        ends = [segment.start for segment in self._segments[1:]] + [position]
        for segment, end in zip(self._segments, ends, strict=True):
            length = min(end, position) - segment.start
            if length > 0:
                turn = self._turn(lane)
                counts += _came(segment.shares, turn + length) - _came(segment.shares, turn)
        return counts

    def _turn(self, lane: int) -> int:
        """Where in the schedule a lane starts: spread over it, else all lanes draw one set."""
        return (mix(self._seed) + lane * SHARES // self._lanes) % SHARES


@functools.lru_cache(maxsize=64)
def _schedule(shares: tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """Returns (data set of each place [1000], how often each came before it [1001, sets]).

    The next place goes to the set that is furthest behind its share.
    """
    weights = np.array(shares)
    came = np.zeros((SHARES + 1, len(shares)), np.int64)
    schedule = np.empty(SHARES, np.int64)
    for place in range(SHARES):
        schedule[place] = np.argmax(weights * (place + 1) - came[place] * SHARES)
        came[place + 1] = came[place]
        came[place + 1, schedule[place]] += 1
    return schedule, came


def _came(shares: tuple[int, ...], places: int) -> NDArray[np.int64]:
    rounds, rest = divmod(places, SHARES)
    return rounds * np.array(shares) + _schedule(shares)[1][rest]


def _shares(weights: Mapping[str, float]) -> tuple[int, ...]:
    """Rounds weights to whole shares that sum to 1000 (largest remainders), each at least one."""
    low = [name for name, weight in weights.items() if not weight > 0]
    if low:
        raise UserError(f"weight of {low[0]!r} is {weights[low[0]]}; it must be positive")
    exact = np.array(list(weights.values())) * SHARES / sum(weights.values())
    shares = np.maximum(1, np.floor(exact).astype(int))
    while shares.sum() != SHARES:
        step = 1 if shares.sum() < SHARES else -1
        shares[np.argmax((exact - shares) * step)] += step
    return tuple(shares.tolist())
