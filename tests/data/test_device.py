"""Global arrays over the virtual mesh, and the thread that reads ahead."""

import threading

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from unclip_jax.data.device import prefetch, to_global_arrays


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def test_rows_are_laid_out_over_the_batch_axes(mesh):
    batch = {
        "image_4": np.arange(8 * 48, dtype=np.uint8).reshape(8, 4, 4, 3),
        "tokens": np.arange(16, dtype=np.int32).reshape(8, 2),
        "valid": np.ones(8, bool),
    }
    sharding = NamedSharding(mesh, P(("data", "fsdp")))
    arrays = to_global_arrays(batch, sharding)
    for name, array in arrays.items():
        assert array.dtype == batch[name].dtype
        np.testing.assert_array_equal(array, batch[name])
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}
    rows = {s.device: s.index[0].start for s in arrays["valid"].addressable_shards}
    for (d, f, _), device in np.ndenumerate(mesh.devices):
        assert rows[device] == 2 * (2 * d + f)


def test_reads_two_ahead_and_no_more():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    stream = prefetch(items(), lambda i: i * 10, size=2)
    assert next(stream) == 0
    settled = threading.Event()
    settled.wait(0.3)
    assert made == [0, 1, 2, 3]  # one given, two waiting, one held by the thread
    assert list(stream) == [10 * i for i in range(1, 10)]


def test_errors_of_the_thread_are_raised_here():
    def items():
        yield 1
        raise OSError("disk")

    stream = prefetch(items(), lambda i: i)
    assert next(stream) == 1
    with pytest.raises(OSError, match="disk"):
        next(stream)


def test_closing_stops_the_thread():
    before = threading.active_count()
    stream = prefetch(iter(range(10**9)), lambda i: i)
    assert next(stream) == 0
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
