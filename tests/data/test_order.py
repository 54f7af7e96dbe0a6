"""The order as a pure function: exact epochs, elastic hosts, stable numbers."""

import pickle

import numpy as np
import pytest

from unclip_jax.data.order import Layout, Order, mix, permutation

COUNTS = np.random.default_rng(1).integers(40, 130, 12)
SIZE = int(COUNTS.sum())
CHUNKED = Layout(lanes=8, chunk=16, window=32)
FULL = Layout(lanes=8)


def batch(order, step, rows_per_lane, hosts=1):
    """The global batch of a step, put together from hosts as the loader does."""
    lanes = order.layout.lanes
    parts = [range(h * lanes // hosts, (h + 1) * lanes // hosts) for h in range(hosts)]
    fresh = [Order(order.counts, order.layout, order.seed) for _ in parts]
    rows = [
        o.samples(lane, step * rows_per_lane, rows_per_lane)[1]
        for o, part in zip(fresh, parts, strict=True)
        for lane in part
    ]
    return np.concatenate(rows)


def test_chunked_epoch_is_each_sample_once():
    order = Order(COUNTS, CHUNKED, seed=3)
    for epoch in range(3):
        start = epoch * order.per_lane
        drawn = [order.samples(lane, start, order.per_lane) for lane in range(8)]
        samples = np.concatenate([samples for _, samples in drawn])
        assert all((epochs == epoch).all() for epochs, _ in drawn)
        assert len(set(samples.tolist())) == len(samples) == SIZE - SIZE % 8
        assert samples.min() >= 0
        assert samples.max() < SIZE


def test_full_shuffle_drops_nothing():
    order = Order(COUNTS, FULL, seed=3)
    positions = -(-3 * SIZE // 8)
    by_lane = np.stack([order.samples(lane, 0, positions)[1] for lane in range(8)], axis=1)
    stream = by_lane.ravel()  # example p * L + l
    for epoch in range(3):
        assert sorted(stream[epoch * SIZE : (epoch + 1) * SIZE]) == list(range(SIZE))
    assert (stream[:SIZE] != stream[SIZE : 2 * SIZE]).mean() > 0.95


@pytest.mark.parametrize("layout", [CHUNKED, FULL])
def test_same_batches_for_any_hosts_and_start(layout):
    order = Order(COUNTS, layout, seed=5)
    walked = [batch(order, step, 3) for step in range(60)]  # more than an epoch
    for hosts, step in [(2, 0), (4, 17), (8, 59), (1, 44)]:
        np.testing.assert_array_equal(batch(order, step, 3, hosts), walked[step])


@pytest.mark.parametrize("layout", [CHUNKED, FULL])
def test_another_batch_size_goes_on_with_the_same_samples(layout):
    order = Order(COUNTS, layout, seed=5)
    small = np.concatenate([batch(order, step, 1) for step in range(8, 16)])
    large = np.concatenate([batch(order, step, 4) for step in range(2, 4)])
    assert sorted(small) == sorted(large)


def test_windows_hold_together_what_is_read_together():
    order = Order(COUNTS, CHUNKED, seed=0)
    starts = np.cumsum(COUNTS) - COUNTS
    for window in range(3):
        samples = order.samples(2, window * 32, 32)[1]
        shard = np.searchsorted(starts, samples, "right") - 1
        chunks = {(s, (i - starts[s]) // 16) for s, i in zip(shard, samples, strict=True)}
        assert len(chunks) <= 32 // 8  # short chunks at shard ends are possible, scatter is not
        assert (np.diff(samples) != 1).any()


@pytest.mark.parametrize("layout", [CHUNKED, FULL])
def test_order_depends_on_the_seed_and_the_epoch(layout):
    one, other = Order(COUNTS, layout, 1), Order(COUNTS, layout, 2)
    assert (one.samples(0, 0, 50)[1] != other.samples(0, 0, 50)[1]).mean() > 0.9


def test_substitutes_stay_in_the_window_and_differ():
    order = Order(COUNTS, CHUNKED, seed=9)
    lane, position = 3, 40
    window = set(order.samples(lane, 32, 32)[1].tolist())
    drawn = [order.substitute(lane, p, a) for p in range(32, 64) for a in range(1, 9)]
    assert {sample for _, sample in drawn} == window
    assert {epoch for epoch, _ in drawn} == {0}
    assert drawn == [order.substitute(lane, p, a) for p in range(32, 64) for a in range(1, 9)]
    far = [order.substitute(lane, position, attempt)[1] for attempt in range(9, 60)]
    assert len(set(far) - window) > 30


def test_substitutes_in_the_short_last_window_reach_back():
    order = Order(COUNTS, CHUNKED, seed=9)
    last = order.per_lane - 1
    assert order.per_lane % 32 == 4
    reach = set(order.samples(2, order.per_lane - 36, 36)[1].tolist())
    drawn = {order.substitute(2, last, attempt)[1] for attempt in range(1, 9)}
    assert drawn <= reach
    assert len(drawn) > 4  # more than the last window holds


def test_substitutes_of_the_full_shuffle_are_spread_over_the_set():
    order = Order(COUNTS, FULL, seed=9)
    drawn = [order.substitute(1, p, 1)[1] for p in range(2000)]
    counts = np.bincount(np.array(drawn) * 10 // SIZE, minlength=10)
    assert counts.min() > 140  # 200 expected, standard deviation 13


def test_pickled_order_is_the_same():
    order = Order(COUNTS, CHUNKED, seed=9)
    copy = pickle.loads(pickle.dumps(order))
    np.testing.assert_array_equal(copy.samples(1, 5, 99)[1], order.samples(1, 5, 99)[1])


def test_too_few_samples_for_the_lanes():
    with pytest.raises(ValueError, match="too few"):
        Order(np.array([5]), CHUNKED, 0)


def test_numbers_never_change():
    """A run must resume in the same order under every later release."""
    assert permutation(8, 1, 0, 2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]
    assert mix(0) == 0xE220A8397B1DCDAF  # first output of splitmix64 from state 0
    counts = np.array([82, 86, 107, 125, 43, 52, 114, 125, 62, 68, 118, 78])
    chunked, full = (Order(counts, layout, 42) for layout in (CHUNKED, FULL))
    assert chunked.samples(5, 30, 6)[1].tolist() == [983, 987, 600, 322, 603, 315]
    assert full.samples(5, 30, 6)[1].tolist() == [458, 207, 667, 157, 769, 185]
