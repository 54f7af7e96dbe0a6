"""Muon's matrices and AGC's units on the parameters of real networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unclip_jax.config.schema import Optim
from unclip_jax.core import trees
from unclip_jax.training.clipping import adaptive_clip
from unclip_jax.training.matrices import input_axes, muon_dimensions
from unclip_jax.training.optimizer import make_optimizer

SHAPES = {
    "transformer/blocks/qkv/kernel": (2, 8, 3, 8),
    "transformer/blocks/qkv/bias": (2, 3, 8),
    "transformer/blocks/mlp_in/kernel": (2, 8, 32),
    "unet/mid_res_0/conv1/kernel": (3, 3, 8, 16),
    "out/kernel": (8, 4),
    "position_embedding": (5, 8),
}
INSIDE_BLOCKS = [p for p in SHAPES if p.endswith(("qkv/kernel", "mlp_in/kernel", "conv1/kernel"))]


def weights(seed):
    generator = np.random.default_rng(seed)
    return trees.unflatten(
        {k: jnp.asarray(generator.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
    )


def test_axes_of_inputs():
    found = [input_axes(path, len(shape)) for path, shape in SHAPES.items()]
    assert found == [(1,), (), (1,), (0, 1, 2), (0,), ()]


def test_muon_takes_the_matrices_inside_blocks_only():
    leaves = jax.tree.leaves(
        muon_dimensions(weights(0)), is_leaf=lambda x: x is None or hasattr(x, "output_axis")
    )
    chosen = [path for path, d in zip(trees.flatten(weights(0)), leaves, strict=True) if d]
    assert sorted(chosen) == sorted(INSIDE_BLOCKS)


def test_muon_updates_are_nearly_orthogonal_with_the_spread_of_adams():
    config = Optim(name="muon", clip_norm=None, weight_decay=0.5)
    tx = make_optimizer(config, optax.constant_schedule(0.1))
    params = weights(0)
    update = jax.jit(tx.update)(weights(1), tx.init(params), params)[0]
    flat, before = trees.flatten(update), trees.flatten(params)
    path = "transformer/blocks/qkv/kernel"
    moved = np.asarray(flat[path] + 0.1 * 0.5 * before[path])  # without the decay
    for layer in range(2):
        for part in range(3):  # q, k and v, each by itself
            values = np.linalg.svd(moved[layer, :, part], compute_uv=False)
            assert values.max() / values.min() < 3  # five Newton-Schulz steps: 0.7 to 1.2
            rms = np.sqrt(np.mean(moved[layer, :, part] ** 2))
            assert 0.6 < rms / (0.1 * 0.2) < 1.4
    bias = np.asarray(flat["transformer/blocks/qkv/bias"])
    # No decay, and the first step of Adam with Nesterov's momentum: 1 + b1 / (1 + b1) rates.
    np.testing.assert_allclose(np.abs(bias), 0.1 * (1 + 0.9 / 1.9), rtol=1e-3)


def test_agc_bounds_each_unit_by_its_own_weights():
    params, gradients = weights(0), jax.tree.map(lambda g: 100 * g, weights(1))
    tx = adaptive_clip(0.01)
    clipped = trees.flatten(tx.update(gradients, tx.init(params), params)[0])
    given, before = trees.flatten(gradients), trees.flatten(params)
    conv, bias = "unet/mid_res_0/conv1/kernel", "transformer/blocks/qkv/bias"
    for unit in range(16):
        w, g = (np.linalg.norm(x[conv][..., unit]) for x in (before, clipped))
        np.testing.assert_allclose(g, 0.01 * w, rtol=1e-5)
    for layer in range(2):
        w, g = (np.linalg.norm(x[bias][layer]) for x in (before, clipped))
        np.testing.assert_allclose(g, 0.01 * w, rtol=1e-5)
    kept = adaptive_clip(1e6).update(gradients, tx.init(params), params)[0]
    np.testing.assert_array_equal(trees.flatten(kept)[conv], given[conv])
