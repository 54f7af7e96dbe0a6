"""A stage of two scanned layers that predicts noise drawn from each example's key.

It has all that partitioning can get wrong, and compiles in seconds.
"""

import jax.numpy as jnp
import numpy as np

from unclip_jax.config.needs import BatchNeeds
from unclip_jax.core import rng
from unclip_jax.models.transformer import Transformer
from unclip_jax.stages.stage import Stage

ROWS, LENGTH, WIDTH, LAYERS = 16, 4, 32, 2


def toy_stage():
    net = Transformer(layers=LAYERS, heads=2, scan_layers=True)

    def init(key):
        return {"transformer": net.init(key, jnp.zeros((1, LENGTH, WIDTH)))["params"]}

    def loss(params, frozen, batch, keys):
        noise = rng.normal(keys, (LENGTH, WIDTH))
        out = net.apply({"params": params["transformer"]}, batch["x"] + noise)
        losses = jnp.mean((out - noise) ** 2, axis=(1, 2))
        return losses, {"upper": (losses, (batch["x"][:, 0, 0] > 0).astype(jnp.float32))}

    return Stage("toy", BatchNeeds(), init, loss)


def toy_batch():
    x = np.random.default_rng(0).normal(size=(ROWS, LENGTH, WIDTH))
    return {"x": x.astype(np.float32)}
