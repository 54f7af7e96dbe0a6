"""Global arrays over the virtual mesh, and the thread that reads ahead."""

import threading

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from unclip_jax.data import device as device_module
from unclip_jax.data import host_rows
from unclip_jax.data.device import Prefetch, needed_rows, to_global_arrays
from unclip_jax.data.rows import lanes_of
from unclip_jax.errors import UserError


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


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_each_host_reads_the_rows_of_its_devices(mesh, hosts):
    """Virtual devices play hosts: together they hold the batch, and each shard fits its rows."""
    sharding = NamedSharding(mesh, P(("data", "fsdp")))
    whole = np.arange(16 * 3).reshape(16, 3)
    shares = np.split(mesh.devices.ravel(), hosts)
    placed = {}
    for host, devices in enumerate(shares):
        rows = needed_rows(sharding, 16, devices.tolist())
        np.testing.assert_array_equal(rows, host_rows(16, hosts, host))
        for device, index in sharding.devices_indices_map((16, 3)).items():
            if device in devices:
                placed[device] = device_module._held(whole[rows], rows, index, 16)
    for shard in to_global_arrays({"x": whole}, sharding)["x"].addressable_shards:
        np.testing.assert_array_equal(placed[shard.device], shard.data)


def test_replicas_on_two_hosts_read_the_same_rows():
    """A tensor axis across hosts, and devices whose rows do not lie side by side."""
    tensor = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(tensor, P("data"))
    across = tensor.devices.T.reshape(2, 4)  # each host has both data rows
    one, other = (needed_rows(sharding, 8, devices.tolist()) for devices in across)
    np.testing.assert_array_equal(one, other)
    assert one.tolist() == list(range(8))
    flat = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    scattered = needed_rows(NamedSharding(flat, P("data")), 16, [flat.devices[5], flat.devices[1]])
    assert scattered.tolist() == [2, 3, 10, 11]
    index = (slice(10, 12), slice(None))
    held = device_module._held(np.array([[2], [3], [10], [11]]), scattered, index, 16)
    assert held.tolist() == [[10], [11]]


def test_rows_are_whole_lanes():
    assert lanes_of(np.array([2, 3, 10, 11]), 16, 8) == [1, 5]
    with pytest.raises(UserError, match="do not fit 8 data lanes of 2 rows"):
        lanes_of(np.array([3, 4]), 16, 8)
    with pytest.raises(UserError, match="must be a multiple"):
        lanes_of(np.arange(16), 16, 5)
    with pytest.raises(UserError, match="not a multiple of 3 hosts"):
        host_rows(16, 3, 0)
    with pytest.raises(UserError, match="numbered 0 to 1"):
        host_rows(16, 2, 2)


def test_reads_two_ahead_and_no_more():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    stream = Prefetch(items(), lambda i: i * 10, size=2)
    assert next(stream) == 0
    settled = threading.Event()
    settled.wait(0.3)
    assert made == [0, 1, 2, 3]  # one given, two waiting, one held by the thread
    assert list(stream) == [10 * i for i in range(1, 10)]


def test_errors_of_the_thread_are_raised_here_and_known_two_items_before():
    def items():
        yield from range(3)
        raise OSError("disk")

    stream = Prefetch(items(), lambda i: i)
    assert next(stream) == 0
    assert next(stream) == 1
    assert isinstance(stream.error, OSError)
    assert next(stream) == 2
    with pytest.raises(OSError, match="disk"):
        next(stream)


def test_closing_stops_the_thread():
    before = threading.active_count()
    stream = Prefetch(iter(range(10**9)), lambda i: i)
    assert next(stream) == 0
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
