"""A cascade of the tiny presets, made smaller still, with random weights that are not zero."""

import jax
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.config.schema import Mesh
from unclip_jax.core.hashing import weights_hash
from unclip_jax.generation import Pipeline, TrainedStage, compose
from unclip_jax.parallel import make_mesh

SMALLER = {
    "clip": {"model.vision_layers": "1", "model.text_layers": "1", "model.image_size": "8"},
    "prior": {"model.layers": "1", "sampling.steps": "3", "sampling.guidance_scale": "2"},
    "decoder": {
        "model.multipliers": "(1,)",
        "model.attention_resolutions": "(8,)",
        "sampling.steps": "3",
    },
    "upsampler": {"model.multipliers": "(1,)", "sampling.steps": "2"},
}


def random_weights(shapes, seed):
    """Normal weights of variance 1 / fan-in; nothing is zero, so everything has an effect."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        looked_up = "embedding" in path[-1].key
        fan_in = 1 if looked_up else np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 4
        if leaf.ndim > 2 and path[-2].key == "qkv":
            fan_in /= 3  # [..., W, 3, W]: three kernels
        return (generator.normal(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_stage(kind, clip=None, *, seed=0, **overrides):
    """A trained stage of the smaller preset; `overrides` {setting: text}, dots as double lines."""
    changes = {name.replace("__", "."): text for name, text in overrides.items()}
    config = load_config(f"{kind}:tiny", SMALLER[kind] | changes)
    stage = stages.build(config, clip.config.model if clip else None)
    params = random_weights(jax.eval_shape(stage.init, jax.random.key(0)), seed)
    statistics = None
    if clip:
        dim = clip.config.model.embedding_dim
        statistics = {"mean": np.full(dim, 0.1, np.float32), "std": np.full(dim, 0.5, np.float32)}
    return TrainedStage(
        config=config,
        params=params,
        step=100,
        weights_sha256=weights_hash(params),
        source=f"runs/{kind}",
        clip_sha256=clip.weights_sha256 if clip else None,
        statistics=statistics,
        provenance={"git_revision": "0" * 40, "data": {"examples": 7, "fingerprint": "f" * 64}},
    )


@pytest.fixture(scope="session")
def make():
    return make_stage


@pytest.fixture(scope="session")
def clip():
    return make_stage("clip")


@pytest.fixture(scope="session")
def cascade(clip):
    return compose(
        [make_stage("upsampler"), make_stage("decoder", clip), make_stage("prior", clip), clip]
    )


@pytest.fixture(scope="session")
def one_device():
    return make_mesh(Mesh(), jax.devices()[:1])


@pytest.fixture(scope="session")
def pipeline(cascade, one_device):
    return Pipeline(cascade, one_device)
