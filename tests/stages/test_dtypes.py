"""The whole loss of every stage in bfloat16: where it is left, and that float64 never enters.

The programs are traced with 64-bit types allowed, so that whatever asks for the widest float, by
numpy scalars or by a default, shows itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng

ROWS = 3
STAGES = ("clip", "prior", "decoder", "upsampler")


def equations(jaxpr):
    """All equations, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                value = value.jaxpr
            if isinstance(value, core.Jaxpr):
                yield from equations(value)


@functools.cache
def program(name):
    """The jaxpr of loss and gradient of a tiny stage."""
    config = load_config(f"{name}:tiny", {"precision.compute": "bfloat16"})
    clip = load_config("clip:tiny")
    stage = stages.build(config, clip.model)
    key = jax.random.key(0)
    params = jax.eval_shape(stage.init, key)
    dim = jax.ShapeDtypeStruct((clip.model.embedding_dim,), jnp.float32)
    frozen = {
        "clip": jax.eval_shape(stages.build(clip).init, key),
        "statistics": {"mean": dim, "std": dim},
    }
    shapes = {name: ((ROWS, s, s, 3), np.uint8) for name, s in stage.needs.sides().items()}
    if stage.needs.context_length:
        shapes["tokens"] = ((ROWS, stage.needs.context_length), np.int32)
    batch = {k: jax.ShapeDtypeStruct(*shape) for k, shape in shapes.items()}

    def loss(params, frozen, batch):
        keys = rng.example_keys(jax.random.key(0), "train", np.int32(0), ROWS)
        return jnp.mean(stage.loss(params, frozen, batch, keys)[0])

    with jax.enable_x64(True):
        return list(
            equations(jax.make_jaxpr(jax.value_and_grad(loss))(params, frozen, batch).jaxpr)
        )


@pytest.mark.parametrize("name", STAGES)
def test_nothing_becomes_float64(name):
    wide = {
        (e.primitive.name, v.aval.shape)
        for e in program(name)
        for v in e.outvars
        if str(v.aval.dtype) in ("float64", "complex128")
    }
    if name == "upsampler":
        # jax.image.resize makes its matrices in the default float and casts them to the picture's.
        wide = {(kind, shape) for kind, shape in wide if ROWS in shape or len(shape) > 2}
    assert wide == set()


# What stays in float32 by intent: the cosines of CLIP's loss and of its accuracy, and the gradients
# towards both embeddings; the interpolation of an upsampler's small picture.
WIDE = {"clip": 4, "prior": 0, "decoder": 0, "upsampler": 2}


@pytest.mark.parametrize("name", STAGES)
def test_products_and_convolutions_are_in_bfloat16(name):
    wide = []
    for e in program(name):
        if e.primitive.name in ("dot_general", "conv_general_dilated"):
            kinds = {str(v.aval.dtype) for v in e.invars}
            # Backwards, attention multiplies float32 by bfloat16, but at the speed of bfloat16.
            rounded = e.params["precision"] is jax.lax.DotAlgorithmPreset.BF16_BF16_F32
            if kinds != {"bfloat16"} and not rounded:
                wide.append((e.primitive.name, [v.aval.shape for v in e.invars]))
    assert len(wide) == WIDE[name], wide
