"""The same run on any mesh, and what its compiled step sends between devices.

The stage is `toy_transformer`; CLIP, whose loss compares examples, comes at the end.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from mesh_runs import COMPLAINT, compiled_anew, losses, start
from toy_transformer import LAYERS, LENGTH, ROWS, WIDTH, toy_batch, toy_stage

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import Mesh
from unclip_jax.core import trees
from unclip_jax.parallel import make_mesh
from unclip_jax.parallel.collectives import bytes_by_kind
from unclip_jax.stages.objective import diffusion_loss
from unclip_jax.stages.stage import Stage

KERNELS = 12 * WIDTH**2  # of one layer: qkv, attention_out, mlp_in, mlp_out
VECTORS = 13 * WIDTH  # its biases and norms
FLOAT = 4


MESHES = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8, "data": 1},
    "tensor": {"data": 2, "tensor": 2},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
    "zero2": {"data": 2, "fsdp": 2, "fsdp_splits": "optimizer"},
    "accumulate": {"data": 4, "accumulate": 2},
    "accumulate fsdp": {"data": 2, "fsdp": 2, "accumulate": 2},
    "accumulate zero2": {"data": 2, "fsdp": 2, "accumulate": 4, "fsdp_splits": "optimizer"},
}


@pytest.fixture(scope="module")
def runs():
    return functools.cache(lambda name: start(toy_stage(), toy_batch(), **MESHES[name]))


@pytest.fixture(scope="module")
def one_device():
    return losses(start(toy_stage(), toy_batch(), data=1))


def test_the_compiler_complains_where_it_gathers_an_array(capfd):
    """From rows over two axes to columns over the third there is no other way."""
    mesh = make_mesh(Mesh(data=2, fsdp=2, tensor=2), jax.devices())
    layouts = [NamedSharding(mesh, spec) for spec in (P(("data", "fsdp")), P(None, "tensor"))]

    def turned(x):
        rows = jnp.tanh(jax.lax.with_sharding_constraint(jnp.sin(x), layouts[0]))
        return jnp.cos(jax.lax.with_sharding_constraint(rows, layouts[1]))

    with compiled_anew():
        jax.jit(turned).lower(jax.ShapeDtypeStruct((16, 16), jnp.float32)).compile()
    assert COMPLAINT in capfd.readouterr().err


@pytest.mark.parametrize("name", MESHES)
def test_losses_and_norms_do_not_depend_on_the_mesh(name, runs, one_device, capfd):
    with compiled_anew():
        np.testing.assert_allclose(losses(runs(name)), one_device, rtol=1e-5, atol=1e-7)
    assert COMPLAINT not in capfd.readouterr().err


def test_data_parallelism_sums_the_gradients_once(runs):
    """In the loop over layers, so the bytes are those of one layer."""
    assert bytes_by_kind(runs("data").sent) == {"all-reduce": (KERNELS + VECTORS) * FLOAT}


def test_fsdp_gathers_each_kernel_twice_and_sums_the_gradients_once(runs):
    """Forwards and backwards; on CPU a reduce-scatter is an all-reduce and a slice."""
    sent = runs("fsdp").sent
    assert bytes_by_kind(sent) == {
        "all-gather": 2 * KERNELS * FLOAT,
        "all-reduce": (KERNELS + VECTORS) * FLOAT,
    }
    assert max(c.bytes for c in sent if c.kind == "all-gather") == 4 * WIDTH**2 * FLOAT


def test_tensor_parallelism_sums_activations_four_times_a_layer(runs):
    """Megatron: after attention and after the MLP, and as often in the backward pass."""
    run = runs("tensor")
    activations = ROWS // 2 * LENGTH * WIDTH * FLOAT
    by_shape = [c.bytes for c in run.sent if c.shapes == (f"f32[{ROWS // 2},{LENGTH},{WIDTH}]",)]
    assert by_shape == 4 * [activations]
    gradients = sum(c.bytes for c in run.sent) - 4 * activations
    split = KERNELS + 7 * WIDTH  # kernels, and the biases of qkv and mlp_in
    assert gradients == (split // 2 + VECTORS - 7 * WIDTH) * FLOAT
    assert {c.kind for c in run.sent} == {"all-reduce"}


def test_zero2_sums_gradients_and_gathers_updates(runs):
    """Kernels over `fsdp`, then each half over `data`; vectors, which stay whole, at once."""
    sent = runs("zero2").sent
    assert not [c for c in sent if c.kind == "all-gather" and c.in_loop]
    gathered = sum(c.bytes for c in sent if c.kind == "all-gather")
    assert gathered == LAYERS * KERNELS * FLOAT
    summed = sum(c.bytes for c in sent if c.kind == "all-reduce")
    assert summed == (KERNELS + KERNELS // 2 + VECTORS) * FLOAT


@pytest.mark.parametrize("name", ["accumulate", "accumulate zero2"])
def test_accumulation_sums_over_devices_once_a_step(name, runs):
    sums = [c for c in runs(name).sent if c.kind == "all-reduce"]
    scalars = sum(c.shapes.count("f32[]") for c in sums)  # norms, summed along
    assert sum(c.bytes for c in sums) == (LAYERS * (KERNELS + VECTORS) + scalars) * FLOAT
    assert not any(c.in_loop for c in sums)


def test_accumulation_does_not_replicate_the_batch(runs):
    """Twice as many turns over half the rows: the work of a device stays the same."""
    flops = [runs(name).compiled.cost_analysis()["flops"] for name in ("data", "accumulate")]
    # XLA counts a loop's body once: 2 rows a turn on 4 devices, as 2 rows on 8.
    assert flops[1] == pytest.approx(flops[0], rel=0.05)


def test_the_state_is_donated(runs):
    run = runs("fsdp")
    placed = trees.flatten(run.layout)
    held = sum(
        int(np.prod(placed[p].shard_shape(x.shape))) * x.dtype.itemsize
        for p, x in trees.flatten(run.state).items()
    )
    assert run.compiled.memory_analysis().alias_size_in_bytes >= held


def test_stratified_timesteps_are_those_of_the_whole_batch():
    """One linear layer is enough; in parts over four devices and at once on one."""
    config = load_config(
        "prior:tiny", {"clip.path": "unused", "diffusion.time_sampler": "stratified"}
    )
    objective = diffusion_loss(config, num_levels=None)

    def loss(params, frozen, batch, keys):
        network = lambda x, t: (x + t[:, None] / 1000) @ params["w"]  # noqa: E731
        return objective(network, batch["x"], keys, frozen, batch)

    def linear():
        init = lambda key: {"w": jax.random.normal(key, (WIDTH, WIDTH))}  # noqa: E731
        return Stage("linear", BatchNeeds(), init, loss, prepare=objective.prepare)

    batch = {"x": toy_batch()["x"][:, 0]}
    parts, whole = (
        start(linear(), batch, accumulate=count, data=data) for count, data in ((2, 4), (1, 1))
    )
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_clip_batch_in_parts_still_compares_all_pairs():
    """Towers in parts and embeddings round a ring of devices, against the batch at once on one."""
    small = {f"model.{t}_{n}": "1" for t in ("vision", "text") for n in ("layers", "heads")}

    def run(accumulate, data):
        config = load_config("clip:tiny", small | {"train.accumulate": str(accumulate)})
        generator = np.random.default_rng(0)
        tokens = generator.integers(1, 1000, (ROWS, 16)).astype(np.int32)
        tokens[:, 9:] = 49407
        pictures = generator.integers(0, 256, (ROWS, 16, 16, 3)).astype(np.uint8)
        batch = {"image_16": pictures, "tokens": tokens}
        return start(stages.build(config), batch, accumulate=accumulate, data=data)

    parts = run(2, 4)
    # All but the last, the update's norm: Adam's first steps divide rounding by rounding.
    found, expected = losses(parts)[:, :-1], losses(run(1, 1))[:, :-1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not [c for c in parts.sent if c.kind == "all-reduce" and c.in_loop]
