"""Contrastive losses: closed forms, the ring over devices, and chunks against the large batch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from unclip_jax.errors import UserError
from unclip_jax.models.contrastive import (
    MAX_LOGIT_SCALE,
    clamp_logit_scale,
    clip_loss,
    encode_in_chunks,
    l2_normalize,
    retrieval_hits,
    ring_clip_loss,
    ring_retrieval_hits,
    ring_siglip_loss,
    siglip_loss,
)

SCALE, BIAS = jnp.asarray(1.7), jnp.asarray(-2.5)


def embeddings(batch=16, dim=6):
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, batch, dim)).astype(np.float32) * 3
    return jnp.asarray(image), jnp.asarray(text + image / 2)


def numpy_logits(image, text, scale, bias=0.0):
    u, v = (np.asarray(x, np.float64) for x in (image, text))
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
    return np.exp(float(scale)) * u @ v.T + float(bias)


def test_clip_loss_is_the_cross_entropy_of_rows_and_columns():
    image, text = embeddings()
    p = np.exp(numpy_logits(image, text, SCALE))
    wanted = -np.log(p / p.sum(1, keepdims=True)) - np.log(p / p.sum(0, keepdims=True))
    got = clip_loss(image, text, SCALE)
    assert got.shape == (16,)
    np.testing.assert_allclose(got, wanted.diagonal() / 2, rtol=2e-6)


def test_siglip_loss_is_the_binary_cross_entropy_with_one_positive_per_row():
    image, text = embeddings()
    p = 1 / (1 + np.exp(-numpy_logits(image, text, SCALE, BIAS)))
    wanted = -np.where(np.eye(16, dtype=bool), np.log(p), np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(siglip_loss(image, text, SCALE, BIAS), wanted, rtol=2e-6)


def test_equal_embeddings_give_log_of_the_batch():
    same = jnp.ones((8, 4))
    np.testing.assert_allclose(clip_loss(same, same, SCALE), math.log(8), rtol=1e-6)


def test_lengths_of_embeddings_do_not_matter_and_zero_has_a_finite_gradient():
    image, text = embeddings()
    np.testing.assert_allclose(
        clip_loss(7 * image, text / 5, SCALE), clip_loss(image, text, SCALE), rtol=1e-5
    )
    assert l2_normalize(image.astype(jnp.bfloat16)).dtype == jnp.float32
    slope = jax.jit(jax.grad(lambda z: clip_loss(z, text, SCALE).sum()))
    grads = slope(image.at[0].set(0.0))
    assert bool(jnp.isfinite(grads).all())


def test_logit_scale_is_held_at_ln_100_and_can_fall_from_there():
    image, text = embeddings()
    at_limit = jnp.asarray(MAX_LOGIT_SCALE, jnp.float32)
    np.testing.assert_array_equal(
        clip_loss(image, text, at_limit + 1), clip_loss(image, text, at_limit)
    )
    slope = jax.jit(jax.grad(lambda s: clip_loss(image, text, s).mean()))
    below = slope(at_limit - 1e-3)
    np.testing.assert_allclose(slope(at_limit), below, rtol=2e-2)
    assert slope(at_limit + 1e-3) == 0
    params = {"vision": {"w": jnp.ones(2)}, "logit_scale": jnp.asarray(5.0)}
    clamped = clamp_logit_scale(params)
    np.testing.assert_allclose(clamped["logit_scale"], math.log(100), rtol=1e-7)
    assert clamped["vision"] is params["vision"]
    assert clamp_logit_scale({"logit_scale": jnp.asarray(2.0)})["logit_scale"] == 2.0


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2}, {"data": 1}])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_ring_equals_one_device_in_value_and_gradient(axes, kind, claim):
    image, text = embeddings()
    count = math.prod(axes.values())
    mesh = jax.make_mesh(
        tuple(axes.values()),
        tuple(axes),
        axis_types=(AxisType.Auto,) * len(axes),
        devices=jax.devices()[:count],
    )
    names = tuple(axes)
    weights = jnp.linspace(0.5, 2.0, 16)  # a plain mean would hide a permutation of examples
    scalars = (SCALE,) if kind == "softmax" else (SCALE, BIAS)
    single, ring = {
        "softmax": (clip_loss, ring_clip_loss),
        "sigmoid": (siglip_loss, ring_siglip_loss),
    }[kind]
    sharded = jax.shard_map(
        lambda *x: ring(*x, axis_name=names),
        mesh=mesh,
        in_specs=(P(names), P(names), *(P() for _ in scalars)),
        out_specs=P(names),
    )
    arguments = (image, text, *scalars)
    argnums = tuple(range(len(arguments)))
    run = lambda f: jax.jit(  # noqa: E731
        jax.value_and_grad(lambda *x: jnp.sum(weights * f(*x)), argnums=argnums)
    )(*arguments)
    what = f"{kind} loss round a ring of up to 8 devices, value and gradients"
    for a, b in zip(*map(jax.tree.leaves, (run(sharded), run(single))), strict=True):
        claim.near(what, "one device", a, b, bound=2e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_padding_is_nobodys_negative(kind):
    image, text = embeddings()
    scalars = (SCALE,) if kind == "softmax" else (SCALE, BIAS)
    single, ring = {
        "softmax": (clip_loss, ring_clip_loss),
        "sigmoid": (siglip_loss, ring_siglip_loss),
    }[kind]
    valid = jnp.arange(16) < 11
    sharded = jax.shard_map(
        lambda valid, *x: ring(*x, axis_name="data", valid=valid),
        mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=(P("data"), P("data"), P("data"), *(P() for _ in scalars)),
        out_specs=P("data"),
    )
    alone = single(image[:11], text[:11], *scalars)
    for padded in (
        single(image, text, *scalars, valid=valid),
        sharded(valid, image, text, *scalars),
    ):
        np.testing.assert_allclose(padded[:11], alone, rtol=2e-5)
        assert np.isfinite(padded).all()


def test_hits_are_rows_whose_greatest_cosine_is_their_own_and_the_ring_finds_the_same():
    image, text = embeddings()
    logits = numpy_logits(image, text, 0.0)
    wanted = logits.argmax(axis=1) == np.arange(16)
    assert 0 < wanted.sum() < 16  # both kinds are there
    np.testing.assert_array_equal(retrieval_hits(image, text), wanted)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    ring = jax.shard_map(
        lambda *x: ring_retrieval_hits(*x, axis_name="data"),
        mesh=mesh,
        in_specs=(P("data"), P("data")),
        out_specs=P("data"),
    )
    np.testing.assert_array_equal(jax.jit(ring)(image, text), wanted)


def towers(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["first"])
    return {"image": hidden @ params["image"], "text": jnp.sin(hidden) @ params["text"]}


def loss_in_chunks(params, batch, chunks):
    encode = lambda part: towers(params, part)  # noqa: E731
    z = encode(batch) if chunks == 0 else encode_in_chunks(encode, batch, chunks)
    weights = jnp.linspace(0.5, 2.0, z["image"].shape[0])
    return jnp.sum(weights * clip_loss(z["image"], z["text"], params["logit_scale"]))


def tower_inputs(batch=16, width=32):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "first": jax.random.normal(keys[0], (8, width)),
        "image": jax.random.normal(keys[1], (width, 6)),
        "text": jax.random.normal(keys[2], (width, 6)),
        "logit_scale": SCALE,
    }
    return params, {"x": jax.random.normal(keys[3], (batch, 8))}


@pytest.mark.parametrize("chunks", [4, 16])
def test_chunks_equal_the_large_batch_in_value_and_gradient(chunks, claim):
    params, batch = tower_inputs()
    step = jax.jit(jax.value_and_grad(loss_in_chunks), static_argnums=2)
    both = step(params, batch, chunks), step(params, batch, 0)
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        claim.near("gradient-cached towers, value and gradients", "one batch", a, b, bound=2e-5)


def test_chunks_need_the_activations_of_one_chunk_only():
    params, batch = tower_inputs(batch=64, width=4096)
    step = jax.jit(jax.grad(loss_in_chunks), static_argnums=2)
    temporary = [
        step.lower(params, batch, n).compile().memory_analysis().temp_size_in_bytes for n in (0, 16)
    ]
    assert temporary[1] < 0.5 * temporary[0]


def test_a_batch_that_does_not_divide_is_refused():
    params, batch = tower_inputs()
    with pytest.raises(UserError, match="16 does not divide into 5 chunks"):
        loss_in_chunks(params, batch, 5)
