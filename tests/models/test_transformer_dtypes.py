"""Precision: nothing becomes float64 by accident, and bfloat16 is left only where it must be.

The float32 islands of a bfloat16 network are the softmax with the logits it reads, the statistics
and the arithmetic of norms, the first normalisation of images, sinusoids of timesteps, and outputs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from unclip_jax.models import (
    CLIP_SIZES,
    Clip,
    PriorTransformer,
    TextTower,
    clip_loss,
    siglip_loss,
)
from unclip_jax.models.transformer import Transformer

CLIP = {**CLIP_SIZES["tiny"], "vocab_size": 64, "eot_id": 63, "context_length": 9}
PRIOR = {"embedding_dim": 16, "width": 32, "layers": 2, "heads": 2, "context_length": 9}
TEXT = {"width": 32, "layers": 2, "heads": 2, "vocab_size": 64, "eot_id": 63, "context_length": 9}

BATCH = {
    "images": np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32),
    "tokens": np.array([[5, 6, 63, 0, 0, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4, 3, 2, 63]], np.int32),
    "z": np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32),
    "states": np.random.default_rng(2).normal(size=(2, 9, 24)).astype(np.float32),
    "t": np.array([3, 700], np.int32),
    "drop": np.array([True, False]),
}


def run_clip(model, variables, batch, **how):
    return model.apply(variables, batch["images"], batch["tokens"], **how)


def run_prior(model, variables, batch, **how):
    return model.apply(
        variables, batch["z"], batch["t"], text_embedding=batch["z"], drop_text=batch["drop"],
        text_states=batch["states"], text_mask=batch["tokens"] > 0, **how,
    )  # fmt: skip


def run_text(model, variables, batch, **how):
    return model.apply(variables, batch["tokens"], **how)


NETS = {
    "clip": (Clip, CLIP, run_clip),
    "prior": (PriorTransformer, PRIOR, run_prior),
    "text": (TextTower, TEXT, run_text),
}


@functools.cache
def build(name):
    """A model of scanned layers, its variables and how to run it."""
    kind, size, run = NETS[name]
    model = kind(**size, scan_layers=True)

    def init(batch):
        return run(model, {}, batch, rngs={"params": jax.random.key(0)}, mutable=["params"])[1]

    rng = np.random.default_rng(3)

    def fill(path, p):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + rng.normal(size=p.shape) * (p.shape or (1,))[-1] ** -0.5).astype("f4")

    return model, jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, BATCH)), run


def equations(jaxpr):
    """All equations, those of inner programs (scan, pjit, remat) included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                value = value.jaxpr
            if isinstance(value, core.Jaxpr):
                yield from equations(value)


def loss_of(run, model):
    def loss(variables, batch):
        out = run(model, variables, batch)
        return sum(jnp.sum(x) for x in jax.tree.leaves(out) if x.dtype != bool)

    return loss


@pytest.mark.parametrize("name", list(NETS))
def test_float32_networks_and_their_gradients_hold_no_float64(name):
    model, variables, run = build(name)
    with jax.enable_x64(True):
        program = jax.make_jaxpr(jax.grad(loss_of(run, model)))(variables, BATCH)
    found = {str(v.aval.dtype) for e in equations(program.jaxpr) for v in e.outvars}
    assert "float32" in found
    assert not found & {"float64", "complex128"}


def test_losses_hold_no_float64():
    z, scale = np.ones((4, 8), np.float32), np.float32(1.0)
    with jax.enable_x64(True):
        for loss in (lambda a, b, s: clip_loss(a, b, s), lambda a, b, s: siglip_loss(a, b, s, s)):
            program = jax.make_jaxpr(loss)(z, z, scale)
            found = {str(v.aval.dtype) for e in equations(program.jaxpr) for v in e.outvars}
            assert "float32" in found
            assert "float64" not in found


@pytest.mark.parametrize("name", list(NETS))
def test_bfloat16_networks_leave_it_in_the_named_islands_only(name):
    model, variables, run = build(name)
    model = model.clone(dtype=jnp.bfloat16)
    program = jax.make_jaxpr(lambda v, b: run(model, v, b))(variables, BATCH)
    products, activations, wide = [], [], set()
    for e in equations(program.jaxpr):
        inputs = [str(v.aval.dtype) for v in e.invars]
        if e.primitive.name in ("dot_general", "conv_general_dilated"):
            products += inputs
        if e.primitive.name in ("erf", "erfc", "logistic", "tanh"):
            activations += inputs
        if str(e.outvars[0].aval.dtype) == "float32":
            wide.add(e.primitive.name)
    assert products
    assert set(products) == {"bfloat16"}
    assert set(activations) == {"bfloat16"}
    softmax = {"dot_general", "mul", "select_n", "reduce_max", "max", "stop_gradient", "sub", "exp",
               "reduce_sum", "div"}  # fmt: skip
    norm = {"integer_pow", "square", "rsqrt", "add", "mul", "sub", "reduce_sum", "div"}
    sinusoids = {"cos", "sin", "mul"}
    shapes = {"broadcast_in_dim", "reshape", "convert_element_type", "concatenate", "jit", "copy"}
    assert wide <= softmax | norm | sinusoids | shapes


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_residual_stream_has_the_compute_dtype_whatever_comes_in(scan_layers):
    net = Transformer(layers=2, heads=2, scan_layers=scan_layers, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((1, 3, 8), jnp.float32)
    out, variables = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), x)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", list(NETS))
def test_bfloat16_stays_near_float32(name, claim):
    model, variables, run = build(name)
    wanted, got = (
        jax.jit(lambda v, batch, net=net: run(net, v, batch))(variables, BATCH)
        for net in (model, model.clone(dtype=jnp.bfloat16))
    )

    def near(a, b):
        if b.dtype != bool:
            difference = jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)
            # 2**-8 per rounding, some tens of them in 2 layers.
            what = f"{name} in bfloat16 (norm of the difference)"
            claim.within(what, "the same in float32", difference, bound=0.02)

    jax.tree.map(near, got, wanted)
    outputs = [got.embedding] if name == "text" else jax.tree.leaves(got)
    wanted_dtype = jnp.bfloat16 if name == "text" else jnp.float32
    assert {x.dtype for x in outputs} == {jnp.dtype(wanted_dtype)}
