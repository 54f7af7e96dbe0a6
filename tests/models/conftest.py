"""Weights for networks under test: no zeros, from a stream that numpy keeps frozen for ever."""

import jax
import numpy as np
import pytest

from unclip_jax.core import trees


def draw_params(init, seed: int = 0) -> dict:
    """Random parameters of `init`'s shapes, path by path in sorted order.

    tests/oracles/test_unet_diffusers.py draws the same ones for the recorded vectors.
    """
    stream = np.random.RandomState(seed)
    params = {}
    for path, leaf in sorted(trees.flatten(jax.eval_shape(init)["params"]).items()):
        noise = stream.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        params[path] = (noise + path.endswith("scale")).astype(np.float32)
    return trees.unflatten(params)


@pytest.fixture(scope="session")
def random_params():
    """The function (init, seed=0) -> parameters, all of them random."""
    return draw_params
