"""Meshes divide the devices or say why not; the FSDP rule splits what it should."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from unclip_jax.config.schema import Mesh
from unclip_jax.errors import UserError
from unclip_jax.parallel import batch_sharding, check_batch_size, make_mesh, shardings
from unclip_jax.parallel.sharding import MIN_SIZE, fsdp_spec


def test_one_axis_takes_what_the_others_leave():
    assert dict(make_mesh(Mesh(data=-1, fsdp=4)).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert make_mesh(Mesh()).axis_names == ("data", "fsdp", "tensor")


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(data=-1, fsdp=-1), "only one axis may be -1"),
        (Mesh(data=3), "does not divide the 8 devices"),
        (Mesh(data=2, fsdp=2, tensor=1), "does not divide the 8 devices"),
        (Mesh(data=0), "does not divide the 8 devices"),
    ],
)
def test_meshes_that_do_not_fit(mesh, message):
    with pytest.raises(UserError, match=message):
        make_mesh(mesh)


def test_batches_must_divide_over_the_batch_axes():
    mesh = make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    check_batch_size(8, mesh)
    with pytest.raises(UserError, match=r"batch_size=6 does not divide over the 4 devices"):
        check_batch_size(6, mesh)


@pytest.mark.parametrize(
    ("shape", "parts", "spec"),
    [
        ((512, 256), 8, P("fsdp", None)),  # the largest dimension
        ((512, 512), 8, P(None, "fsdp")),  # the last of equals
        ((509, 256), 8, P(None, "fsdp")),  # the largest that divides
        ((509, 251), 8, P()),  # none divides
        ((16, 16), 8, P()),  # too small to be worth a gather
        ((512, 256), 1, P()),
    ],
)
def test_fsdp_rule(shape, parts, spec):
    assert fsdp_spec(shape, parts) == spec


def test_arrays_really_lie_where_the_rule_says():
    mesh = make_mesh(Mesh(data=2, fsdp=4))
    side = int(np.sqrt(MIN_SIZE))
    tree = {"large": np.ones((side, side), np.float32), "small": np.ones(8, np.float32)}
    placed = jax.device_put(tree, shardings(tree, mesh))
    assert {s.data.shape for s in placed["large"].addressable_shards} == {(side, side // 4)}
    assert {s.data.shape for s in placed["small"].addressable_shards} == {(8,)}
    batch = jax.device_put(np.zeros((16, 3)), batch_sharding(mesh))
    assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}
