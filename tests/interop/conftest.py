"""Stages of the tiny presets with random weights, and the cascade of all four."""

import jax
import numpy as np
import pytest

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core.hashing import weights_hash
from unclip_jax.generation import TrainedStage, compose


def make_stage(kind, clip=None, *, seed=0, **overrides):
    config = load_config(f"{kind}:tiny", {k.replace("__", "."): v for k, v in overrides.items()})
    init = stages.build(config, clip.config.model if clip else None).init
    shapes = jax.eval_shape(init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), shapes)
    statistics = None
    if kind == "prior":  # the tiny prior whitens embeddings
        mean, std = generator.normal(size=(2, 16)).astype(np.float32)
        statistics = {"mean": mean, "std": abs(std)}
    return TrainedStage(
        config=config,
        params=params,
        step=1234,
        weights_sha256=weights_hash(params),
        source=f"runs/{kind}",
        clip_sha256=clip.weights_sha256 if clip else None,
        statistics=statistics,
        provenance={"git_revision": "0" * 40, "data": {"examples": 7000, "fingerprint": "f" * 64}},
    )


@pytest.fixture(scope="session")
def make():
    return make_stage


@pytest.fixture(scope="session")
def cascade():
    clip = make_stage("clip")
    larger = {"model__low_size": "16", "model__image_size": "32"}
    return compose(
        [
            clip,
            make_stage("prior", clip),
            make_stage("decoder", clip),
            make_stage("upsampler"),
            make_stage("upsampler", seed=1, **larger),
        ]
    )
