"""The order of a run as a pure function of (seed, position): virtual lanes over chunks of samples.

A run reads L lanes side by side; lane l at position p is one sample, and step t of a global batch
of B = L·m rows takes positions [t·m, (t+1)·m) of every lane. So the state of a run is one number,
and any number of hosts or workers that share out the lanes produce the same global batches.

* Chunked order, for object stores and large sets. Each epoch permutes chunks of C adjacent samples
  (one range read each) and lays them end to end; lane l owns positions [l·n, (l+1)·n), n = N // L,
  and permutes each window of W of them. An epoch shows every sample once, but for N mod L.
* Full shuffle (`chunk` 1, `window` 0), for small or local sets. Example number g = p·L + l of the
  run is entry g mod N of the permutation of epoch g // N: every N examples are each sample once.

Permutations sort the raw output of Philox keyed by (seed, epoch), which NumPy promises never to
change (its `permutation` is not promised), so a run resumes exactly under a later NumPy.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNKS, _WINDOWS = range(2)  # what a Philox stream is for: never two uses of one stream
WINDOW_ATTEMPTS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Layout:
    """How a run walks over its samples; a part of the run's state.

    Attributes:
      lanes: L, which the global batch must be a multiple of and the number of hosts must divide.
      chunk: samples read together (C).
      window: samples shuffled together inside a lane (W); 0 shuffles the whole set.
    """

    lanes: int
    chunk: int = 1
    window: int = 0


def permutation(size: int, seed: int, purpose: int, epoch: int, *at: int) -> NDArray[np.int64]:
    """Returns a permutation of range(size) that depends on nothing but its arguments."""
    counter = [0, purpose, *at, *[0] * (2 - len(at))]
    bits = np.random.Philox(key=[seed & _MASK, epoch], counter=counter)
    return np.argsort(bits.random_raw(size), kind="stable")


def mix(*numbers: int) -> int:
    """Hashes integers to 64 bits (splitmix64): a per-sample draw for a few multiplies."""
    state = 0
    for number in numbers:
        state = ((state ^ (number & _MASK)) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


class Order:
    """(lane, position) -> (epoch, sample) for `counts` samples in each of the shards."""

    def __init__(self, counts: NDArray[np.int64], layout: Layout, seed: int):
        self.layout = layout
        self.seed = seed
        self.counts = np.asarray(counts, np.int64)
        self.size = int(self.counts.sum())
        self._begins, self._lengths = _chunks(self.counts, layout.chunk)
        self._epoch_tables = functools.lru_cache(maxsize=2)(self._make_epoch_tables)
        if layout.window:
            self.per_lane = self.size // layout.lanes
            self._window = functools.lru_cache(maxsize=4 * layout.lanes)(self._make_window)
            if not self.per_lane:
                raise ValueError(f"{self.size} samples are too few for {layout.lanes} lanes")

    def samples(self, lane: int, start: int, count: int) -> tuple[NDArray, NDArray]:
        """Returns (epochs [count], sample numbers [count]) of positions start … start + count."""
        positions = np.arange(start, start + count, dtype=np.int64)
        if self.layout.window == 0:
            examples = positions * self.layout.lanes + lane
            return self._look_up(examples // self.size, examples % self.size)
        epochs, offsets = np.divmod(positions, self.per_lane)
        windows, inside = np.divmod(offsets, self.layout.window)
        places = np.empty_like(positions)
        for epoch, window in sorted(set(zip(epochs.tolist(), windows.tolist(), strict=True))):
            here = (epochs == epoch) & (windows == window)
            first = lane * self.per_lane + window * self.layout.window
            places[here] = first + self._window(epoch, lane, window)[inside[here]]
        return self._look_up(epochs, places)

    def substitute(self, lane: int, position: int, attempt: int) -> tuple[int, int]:
        """Returns (epoch, sample) to take when the sample at a position cannot be used.

        It is drawn by a hash of the position: from the same window, which is being read anyway (the
        short last one counts as W long), and from the whole epoch once WINDOW_ATTEMPTS failed, as
        when a stretch of a shard is damaged.
        """
        draw = mix(self.seed, lane, position, attempt)
        window = self.layout.window
        if window == 0:
            epoch, place = (position * self.layout.lanes + lane) // self.size, draw % self.size
        else:
            epoch, offset = divmod(position, self.per_lane)
            if attempt > WINDOW_ATTEMPTS:
                place = draw % (self.per_lane * self.layout.lanes)
            else:
                first = max(0, min(offset // window * window, self.per_lane - window))
                place = lane * self.per_lane + first + draw % min(window, self.per_lane)
        epochs, samples = self._look_up(np.array([epoch]), np.array([place]))
        return int(epochs[0]), int(samples[0])

    def __reduce__(self):
        return Order, (self.counts, self.layout, self.seed)

    def _look_up(self, epochs: NDArray, places: NDArray) -> tuple[NDArray, NDArray]:
        samples = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            begins, firsts = self._epoch_tables(epoch)
            chunk = np.searchsorted(firsts, places[here], "right") - 1
            samples[here] = begins[chunk] + places[here] - firsts[chunk]
        return epochs, samples

    def _make_epoch_tables(self, epoch: int) -> tuple[NDArray, NDArray]:
        """Returns each chunk's first sample, and its first place in the epoch, in epoch order."""
        shuffled = permutation(len(self._begins), self.seed, _CHUNKS, epoch)
        lengths = self._lengths[shuffled]
        return self._begins[shuffled], np.cumsum(lengths) - lengths

    def _make_window(self, epoch: int, lane: int, window: int) -> NDArray:
        length = min(self.layout.window, self.per_lane - window * self.layout.window)
        return permutation(length, self.seed, _WINDOWS, epoch, lane, window)


def _chunks(counts: NDArray[np.int64], chunk: int) -> tuple[NDArray, NDArray]:
    """Returns (first sample, length) of every chunk; no chunk crosses a shard's end."""
    per_shard = -(-counts // chunk)
    shard = np.repeat(np.arange(len(counts)), per_shard)
    within = np.arange(len(shard)) - np.repeat(np.cumsum(per_shard) - per_shard, per_shard)
    begins = (np.cumsum(counts) - counts)[shard] + within * chunk
    return begins, np.minimum(chunk, counts[shard] - within * chunk)
