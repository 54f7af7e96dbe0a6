"""Meshes divide the devices or say why not; arrays are split as the table and the rule say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from unclip_jax.config import load_config
from unclip_jax.config.schema import Mesh
from unclip_jax.errors import UserError
from unclip_jax.parallel import (
    ShardingRules,
    abstract_mesh,
    batch_sharding,
    check_batch_size,
    check_split,
    make_mesh,
    whole_share,
)
from unclip_jax.parallel.sharding import MIN_SIZE
from unclip_jax.stages import logical_axes


def rules(fsdp=1, tensor=1, **options):
    mesh = abstract_mesh(Mesh(data=1, fsdp=fsdp, tensor=tensor), fsdp * tensor)
    return ShardingRules(mesh, logical_axes, **options)


def test_one_axis_takes_what_the_others_leave():
    assert dict(make_mesh(Mesh(data=-1, fsdp=4)).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert make_mesh(Mesh()).axis_names == ("data", "fsdp", "tensor")
    assert abstract_mesh(Mesh(fsdp=8, tensor=4), 256).shape["data"] == 8


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(data=-1, fsdp=-1), "only one axis may be -1"),
        (Mesh(data=3), "does not divide the 8 devices"),
        (Mesh(data=2, fsdp=2, tensor=1), "does not divide the 8 devices"),
        (Mesh(data=0), "does not divide the 8 devices"),
        (Mesh(data=-2, fsdp=-4), "does not divide the 8 devices"),
        (Mesh(slices=3), "slices=3 does not divide the 8 devices"),
        (Mesh(data=1, fsdp=8, slices=2), "data=1 does not divide over the 2 slices"),
    ],
)
def test_meshes_that_do_not_fit(mesh, message):
    with pytest.raises(UserError, match=message):
        make_mesh(mesh)


def test_only_data_crosses_slices():
    mesh = make_mesh(Mesh(data=4, fsdp=2, slices=2))
    slices = [{d.id // 4 for d in part.flat} for part in mesh.devices]
    assert slices == [{0}, {0}, {1}, {1}]


def test_slices_are_those_that_tpus_report():
    @dataclasses.dataclass(frozen=True)
    class Tpu:
        id: int
        slice_index: int
        coords: tuple[int, int, int] = (0, 0, 0)
        core_on_chip: int = 0
        platform: str = "tpu"
        device_kind: str = "TPU v5 lite"
        process_index: int = 0

    devices = [Tpu(i, i % 2, coords=(i // 2 % 2, i // 4, 0)) for i in range(8)]
    mesh = make_mesh(Mesh(data=2, fsdp=4), devices)
    assert [{d.slice_index for d in part.flat} for part in mesh.devices] == [{0}, {1}]
    with pytest.raises(UserError, match="different numbers of devices"):
        make_mesh(Mesh(data=2, fsdp=3), [*devices[:5], Tpu(9, 0)])


def test_batches_must_divide_over_the_batch_axes():
    mesh = make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    check_batch_size(8, mesh, accumulate=2)
    with pytest.raises(UserError, match=r"batch_size=6 does not divide over the 4 devices"):
        check_batch_size(6, mesh)
    with pytest.raises(UserError, match=r"accumulate=2 parts .* make it a multiple of 8"):
        check_batch_size(12, mesh, accumulate=2)


@pytest.mark.parametrize(
    ("shape", "fsdp", "spec"),
    [
        ((512, 256), 8, P("fsdp", None)),  # the largest dimension
        ((512, 512), 8, P(None, "fsdp")),  # the last of equals
        ((509, 256), 8, P(None, "fsdp")),  # the largest that divides
        ((509, 251), 8, P()),  # none divides
        ((16, 16), 8, P()),  # too small to be worth a gather
        ((512, 256), 1, P()),
    ],
)
def test_arrays_without_names_are_split_by_size(shape, fsdp, spec):
    assert rules(fsdp).spec("w", shape) == spec


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("text/transformer/block_1/qkv/kernel", (64, 3, 64), P("fsdp", None, "tensor")),
        ("text/transformer/block_1/qkv/bias", (3, 64), P(None, "tensor")),
        ("transformer/blocks/mlp_in/kernel", (8, 64, 256), P(None, "fsdp", "tensor")),
        ("transformer/blocks/mlp_out/kernel", (8, 256, 64), P(None, "tensor", "fsdp")),
        ("transformer/blocks/mlp_out/bias", (8, 64), P(None, "fsdp")),
        ("unet/mid_res_0/conv1/kernel", (3, 3, 64, 32), P(None, None, "fsdp", "tensor")),
        ("unet/mid_res_0/conv2/kernel", (3, 3, 32, 64), P(None, None, "tensor", "fsdp")),
        ("unet/mid_res_0/norm2/scale", (32,), P("tensor")),
        ("unet/mid_attention/context_key/kernel", (64, 32), P("fsdp", "tensor")),
        ("unet/mid_attention/out/kernel", (32, 64), P("tensor", "fsdp")),
        ("out/kernel", (64, 32), P("fsdp", None)),  # the network's own output layer
        (
            "opt_state/1/0/mu/transformer/blocks/mlp_in/kernel",
            (8, 64, 8),
            P(None, "fsdp", "tensor"),
        ),
        ("v_row/transformer/blocks/mlp_in/kernel", (8, 64), P(None, "fsdp")),  # a factored moment
        ("v_row/transformer/block_0/mlp_in/bias", (1,), P()),  # and its placeholder
    ],
)
def test_parameters_are_split_by_the_names_of_their_dimensions(path, shape, spec):
    assert rules(fsdp=4, tensor=2, min_size=256).spec(path, shape) == spec


def test_every_name_of_the_table_is_a_parameter_of_a_preset():
    """A renamed layer would silently fall back to its size."""
    from unclip_jax import stages
    from unclip_jax.core import trees
    from unclip_jax.models.logical_axes import TABLE

    clip = load_config("clip:tiny").model
    paths = []
    for stage in ("clip", "prior", "decoder"):
        init = stages.build(load_config(f"{stage}:tiny"), clip).init
        paths += trees.flatten(jax.eval_shape(init, jax.random.key(0)))
    assert [row.pattern for row, _ in TABLE if not any(map(row.search, paths))] == []


def test_a_tensor_axis_must_divide_what_it_splits():
    with pytest.raises(
        UserError, match=r"tensor=2 does not divide a/mlp_in/bias: its 'hidden' has"
    ):
        rules(tensor=2).spec("a/mlp_in/bias", (9,))
    for name, setting in (
        ("clip:tiny", "vision_heads: 2"),
        ("prior:tiny", "heads: 2"),
        ("decoder:tiny", "channels=16, attention heads of level 1: 2"),
        ("upsampler:tiny", "norm_groups: 8"),
    ):
        with pytest.raises(UserError, match=f"does not divide config.model.{setting}"):
            load_config(name, {"mesh.tensor": "16" if "norm" in setting else "4"})


def test_too_much_left_whole_is_an_error():
    split, whole = jnp.zeros((512, 512)), jnp.zeros((509, 251))
    tree = {"a": split, "b": whole}
    shardings = rules(fsdp=8).shardings(tree)
    share = whole.size / (split.size + whole.size)
    assert whole_share(tree, shardings) == (pytest.approx(share), "b")
    check_split(tree, shardings, bound=share + 1e-6, what="parameters")
    with pytest.raises(UserError, match=r"insufficiently sharded: fsdp=8 leaves 33% of .* is b\."):
        check_split(tree, shardings, bound=share - 1e-6, what="parameters")
    assert whole_share(tree, rules().shardings(tree)) == (0.0, "")


def test_arrays_really_lie_where_the_rule_says():
    mesh = make_mesh(Mesh(data=2, fsdp=4))
    side = int(np.sqrt(MIN_SIZE))
    tree = {"large": np.ones((side, side), np.float32), "small": np.ones(8, np.float32)}
    placed = jax.device_put(tree, ShardingRules(mesh).shardings(tree))
    assert {s.data.shape for s in placed["large"].addressable_shards} == {(side, side // 4)}
    assert {s.data.shape for s in placed["small"].addressable_shards} == {(8,)}
    batch = jax.device_put(np.zeros((16, 3)), batch_sharding(mesh))
    assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}
