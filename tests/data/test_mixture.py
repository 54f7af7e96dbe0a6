"""Mixtures: shares on every prefix, whole epochs of each part, weight changes that resume."""

import pickle

import numpy as np
import pytest

from unclip_jax.data import (
    BatchFields,
    DataPosition,
    Mixture,
    host_rows,
    open_dataset,
    train_batches,
)
from unclip_jax.data.mixture import Mixing, MixtureOrder, Segment
from unclip_jax.data.order import Layout
from unclip_jax.errors import UserError
from unclip_jax.text import tokenize

COUNTS = (np.array([50, 30]), np.array([40]), np.array([17, 9]))
SIZES = [80, 40, 26]
LAYOUTS = (Layout(4, 8, 16), Layout(4), Layout(4))


def order_of(*segments):
    return MixtureOrder(COUNTS, Mixing(tuple(segments), LAYOUTS), 4, seed=3)


def parts(samples):
    return np.searchsorted(np.cumsum(SIZES), samples, "right")


def test_shares_hold_on_every_prefix():
    order = order_of(Segment(0, (700, 200, 100)))
    for lane in range(4):
        drawn = parts(order.samples(lane, 0, 2500)[1])
        came = np.cumsum(drawn[:, None] == np.arange(3), axis=0)
        wanted = np.arange(1, 2501)[:, None] * np.array([0.7, 0.2, 0.1])
        assert np.abs(came - wanted).max() < 2
    together = parts(np.concatenate([order.samples(lane, 0, 250)[1] for lane in range(4)]))
    assert np.abs(np.bincount(together) / 1000 - [0.7, 0.2, 0.1]).max() < 0.008


def test_each_part_is_walked_in_whole_epochs():
    """Whatever its share, a part shows each of its samples once before any of them again."""
    order = order_of(Segment(0, (700, 200, 100)))
    for part, size in [(1, 40), (2, 26)]:
        stream = []
        for position in range(2000):
            for lane in range(4):
                epoch, sample = (int(a[0]) for a in order.samples(lane, position, 1))
                if parts(sample) == part:
                    stream.append((epoch, sample))
        for epoch in range(3):
            shown = [sample for e, sample in stream if e == epoch]
            assert len(shown) == len(set(shown)) == size


def test_pieces_join():
    order = order_of(Segment(0, (700, 200, 100)), Segment(37, (100, 100, 800)))
    whole = order.samples(2, 0, 120)
    pieces = [order.samples(2, start, 10) for start in range(0, 120, 10)]
    copy = pickle.loads(pickle.dumps(order)).samples(2, 0, 120)
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([piece[i] for piece in pieces]), whole[i])
        np.testing.assert_array_equal(copy[i], whole[i])


def test_a_change_of_weights_starts_there_and_loses_nothing():
    before = order_of(Segment(0, (700, 200, 100)))
    after = order_of(Segment(0, (700, 200, 100)), Segment(40, (100, 100, 800)))
    for lane in range(4):
        np.testing.assert_array_equal(after.samples(lane, 0, 40)[1], before.samples(lane, 0, 40)[1])
        drawn = parts(after.samples(lane, 40, 500)[1])
        assert abs((drawn == 2).mean() - 0.8) < 0.01
        # a part goes on in its own order: its stream is a prefix of the unchanged one
        long = after.samples(lane, 0, 300)[1]
        unchanged = before.samples(lane, 0, 3000)[1]
        for part in range(3):
            own = long[parts(long) == part]
            np.testing.assert_array_equal(own, unchanged[parts(unchanged) == part][: len(own)])


def test_substitutes_are_of_the_same_part():
    order = order_of(Segment(0, (500, 300, 200)))
    for position in range(60):
        part = parts(order.samples(1, position, 1)[1])[0]
        for attempt in (1, 3, 12):
            assert parts(order.substitute(1, position, attempt)[1]) == part


@pytest.fixture
def sets(tmp_path, make_shards):
    fields = BatchFields(context_length=10)

    def rename(name):
        return lambda i, own: [own[0], (own[1][0], f"{name} {i}".encode()), own[2]]

    return {
        name: open_dataset(make_shards(tmp_path / name, counts, rename(name)), fields)
        for name, counts in [("cat", (30, 20)), ("dog", (12,))]
    }


def draw(mixture, steps, position=None, hosts=1):
    loaders = [
        train_batches(mixture, 8, seed=4, position=position, rows=host_rows(8, hosts, h))
        for h in range(hosts)
    ]
    out = []
    for _ in range(steps):
        rows = [next(loader) for loader in loaders]
        out.append(np.concatenate([batch["tokens"] for batch, _ in rows]))
        position = rows[0][1]
    for loader in loaders:
        loader.close()
    return np.stack(out), position


def test_loader_with_a_weight_change(sets):
    first = Mixture(sets, {"cat": 3, "dog": 1})
    second = Mixture(sets, {"cat": 1, "dog": 3})
    walked, position = draw(first, 10)
    np.testing.assert_array_equal(draw(first, 10, hosts=4)[0], walked)
    position = DataPosition.from_json(position.to_json())
    changed, after = draw(second, 10, position)
    assert after.mixing.segments == (Segment(0, (750, 250)), Segment(10, (250, 750)))
    cat = int(tokenize(["cat"], 3)[0, 1])
    shares = [np.mean(rows[:, :, 1] == cat) for rows in (walked, changed)]
    np.testing.assert_allclose(shares, [0.75, 0.25], atol=0.03)

    # stopped inside the second stretch, with its weights: no new segment, same batches
    early, middle = draw(second, 4, position)
    late, end = draw(second, 6, DataPosition.from_json(middle.to_json()), hosts=2)
    np.testing.assert_array_equal(np.concatenate([early, late]), changed)
    assert end == after


def test_mistakes(sets, tmp_path):
    with pytest.raises(UserError, match=r"has weights for \['cat'\]"):
        Mixture(sets, {"cat": 1})
    with pytest.raises(UserError, match="must be positive"):
        Mixture(sets, {"cat": 1, "dog": 0})
    other = open_dataset(str(tmp_path / "dog"), BatchFields(context_length=11))
    with pytest.raises(UserError, match="same fields"):
        Mixture({"cat": sets["cat"], "dog": other}, {"cat": 1, "dog": 1})
    mixture = Mixture(sets, {"cat": 1, "dog": 1})
    _, position = draw(mixture, 1)
    with pytest.raises(UserError, match="data set has changed"):
        train_batches(mixture.dataset, 8, seed=4, position=position)
    single = train_batches(mixture.dataset, 8, seed=4)
    _, position = next(single)
    single.close()
    with pytest.raises(UserError, match="data set has changed"):
        train_batches(mixture, 8, seed=4, position=position)


def test_shares_are_whole_and_sum_up(sets):
    assert Mixture(sets, {"cat": 2, "dog": 1}).shares == (667, 333)
    assert Mixture(sets, {"cat": 1e-9, "dog": 1}).shares == (1, 999)
