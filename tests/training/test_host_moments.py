"""Moments in the hosts' memory: which, and that runs are the same on any mesh, with any clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mesh_runs import losses, start
from toy_transformer import toy_batch, toy_stage

from unclip_jax.config import load_config
from unclip_jax.config.schema import Optim
from unclip_jax.core import trees
from unclip_jax.core.memories import HOST
from unclip_jax.errors import UserError
from unclip_jax.training.optimizer import make_optimizer
from unclip_jax.training.update import make_update

MESHES = {
    "one device": {"data": 1},
    "data": {"data": 4},
    "fsdp": {"fsdp": 4, "data": 1},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
    "zero2": {"data": 2, "fsdp": 2, "fsdp_splits": "optimizer"},
}
OPTIMIZERS = {
    "clipped": Optim(clip_norm=0.1, weight_decay=0.1),
    "clipped by unit": Optim(adaptive_clip=0.01, weight_decay=0.1),
    "lion": Optim(name="lion", clip_norm=None, weight_decay=0.1),
}


def both(**settings):
    """The same run with moments on the hosts and on the devices."""
    return [start(toy_stage(), toy_batch(), moments=m, **settings) for m in ("host", "device")]


@pytest.mark.parametrize("name", MESHES)
def test_it_is_the_same_run_on_any_mesh(name):
    there, here = map(losses, both(**MESHES[name]))
    np.testing.assert_allclose(there, here, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_gradient_makes_the_same_update_with_any_optimiser_and_clip(name):
    """Clips look at whole gradients, and decay goes by names and dimensions, sliced or not."""
    tx = make_optimizer(OPTIMIZERS[name], optax.constant_schedule(1e-2))
    ends = []
    for run in both(data=1, tx=tx):
        update = jax.jit(
            make_update(tx, run.layout, None),
            out_shardings=(run.layout.params, run.layout.opt_state, None),
        )
        params, moments = run.state.params, run.state.opt_state
        for seed in range(3):
            params, moments, norm = update(normal_like(params, seed), moments, params, True)
        ends.append(trees.flatten((params, moments, norm)))
    for path, leaf in ends[0].items():
        np.testing.assert_allclose(leaf, ends[1][path], rtol=1e-6, atol=1e-8, err_msg=path)


def normal_like(tree, seed):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), tree)


def test_kernels_of_scanned_layers_wait_on_the_host_and_nothing_else():
    run, _ = both(data=1)
    placed = {path: x.sharding.memory_kind for path, x in trees.flatten(run.state).items()}
    waiting = {path for path, kind in placed.items() if kind == HOST}
    layers = ("attention_out", "mlp_in", "mlp_out", "qkv")
    assert waiting == {
        f"opt_state/0/0/{moment}/transformer/blocks/{layer}/kernel"
        for moment in ("mu", "nu")
        for layer in layers
    }


def test_an_update_that_is_not_finite_changes_no_bit():
    run, _ = both(data=2)
    before = jax.tree.map(np.array, run.state)
    poisoned = jax.tree.map(lambda x: x.at[3].set(jnp.nan), run.batch)
    with jax.set_mesh(run.mesh):
        after, metrics = run.step(run.state, run.frozen, poisoned)
    assert metrics["skipped"] == 1
    jax.tree.map(
        np.testing.assert_array_equal, dataclasses.replace(after, step=before.step), before
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"config.optim.name=muon can't be; adamw and lion can"):
        load_config("prior:tiny", {"mesh.moments": "host", "optim.name": "muon"})
    with pytest.raises(UserError, match=r"config.mesh.moments=host moves nothing"):
        start(toy_stage(), toy_batch(), data=1, moments="host", min_size=10**6)
