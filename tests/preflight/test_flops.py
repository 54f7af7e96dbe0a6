"""The cost model against closed forms, XLA's own count, torch's count and published parameters."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng
from unclip_jax.preflight import (
    Flops,
    abstract_batch,
    abstract_frozen,
    count_flops,
    stage_cost,
    stage_flops,
)
from unclip_jax.preflight.flops import RULES


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def preset(stage, variant, clip="tiny", **overrides):
    """(stage, frozen, batch of 2) of a shipped config, as shapes."""
    model = load_config(f"clip:{clip}").model
    config = load_config(f"{stage}:{variant}", overrides)
    built = stages.build(config, model)
    needs_clip = stage in ("prior", "decoder")
    frozen = abstract_frozen(config, model if needs_clip else None)
    return built, frozen, abstract_batch(built.needs, 2, model)


def test_products_are_counted_in_closed_form():
    w, x, kernel = shape(5, 7), shape(3, 5), shape(3, 3, 4, 6)
    assert count_flops(lambda w, x: x @ w, w, x) == Flops(trained=2 * 3 * 5 * 7)
    assert count_flops(lambda w, x: x.T @ x, w, x) == Flops(frozen=2 * 5 * 5 * 3)

    def conv(kernel, x, groups=1):
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=dims, feature_group_count=groups
        )

    per_output = 2 * 3 * 3 * 4
    flops = 2 * 4 * 4 * 6 * per_output
    assert count_flops(conv, kernel, shape(2, 8, 8, 4)).trained == flops
    grouped = count_flops(lambda k, x: conv(k, x, 2), kernel, shape(2, 8, 8, 8)).trained
    assert grouped == flops


def test_programs_inside_programs_are_counted_as_often_as_they_run():
    w, x = shape(4, 4), shape(3, 4)
    once = 2 * 3 * 4 * 4

    def looped(w, x):
        def body(carry, _):
            return jnp.tanh(carry @ w), None

        return lax.scan(body, x, length=5)[0]

    assert count_flops(looped, w, x).trained == 5 * once
    assert count_flops(jax.jit(jax.checkpoint(looped)), w, x).trained == 5 * once
    branch = count_flops(lambda w, x: lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x), w, x)
    assert branch.trained == once
    bounded = count_flops(
        lambda w, x: lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c @ w, x), w, x
    )
    assert bounded.trained == once


def test_a_loop_carries_the_dependence_on_trained_parameters():
    """The first product of the body is frozen only until the carry has seen the weights."""
    x = shape(4, 4)

    def looped(w, x):
        return lax.scan(lambda c, _: ((c @ x) * w, None), x, length=3)[0]

    assert count_flops(looped, shape(4, 4), x) == Flops(trained=3 * 2 * 4**3)


def test_training_costs_three_passes_of_what_is_trained_and_one_of_what_is_frozen():
    assert Flops(trained=10.0, frozen=4.0).train == 34.0
    assert Flops(trained=10.0, frozen=4.0).per(2) == Flops(5.0, 2.0)


def test_fused_attention_has_a_rule_for_its_primitive():
    """cuDNN's kernel is one opaque equation: its two products are counted from the shapes."""
    operands = [SimpleNamespace(aval=shape(2, length, 3, 8)) for length in (10, 14)]
    q, k = jnp.zeros((2, 10, 3, 8)), jnp.zeros((2, 14, 3, 8))
    plain = count_flops(lambda p, q, k: jax.nn.dot_product_attention(q, k, k), {}, q, k)
    ours = RULES["dot_product_attention_fwd_wrapper"](SimpleNamespace(invars=operands))
    assert ours == plain.frozen == 4 * 2 * 3 * 10 * 14 * 8


def test_a_transformer_stage_agrees_with_the_count_of_xla():
    """XLA counts elementwise work too, which is little at this width."""
    overrides = {"model.width": "768", "model.heads": "4", "model.scan_layers": "false"}
    built, frozen, batch = preset("prior", "tiny", **overrides)
    ours = 2 * stage_flops(built, frozen, batch).forward
    theirs = count_of_xla(built, frozen, batch)
    assert 0.97 * theirs < ours < theirs


def test_a_convolutional_stage_agrees_with_the_count_of_xla():
    """XLA leaves out the taps in the padding: of 3 at each border position of a map, one.

    The maps of a 32 px upsampler of two levels have 32 and 16 positions a side, so between
    (3 * 16 - 2)^2 / (3 * 16)^2 = 0.92 and 0.96 of our count are theirs, plus elementwise work.
    """
    overrides = {"model.channels": "64", "model.low_size": "8", "model.image_size": "32"}
    overrides |= {"model.crop_fraction": "1.0"}
    built, frozen, batch = preset("upsampler", "tiny", **overrides)
    ours = 2 * stage_flops(built, frozen, batch).forward
    assert 0.92 * ours < count_of_xla(built, frozen, batch) < 1.0 * ours


def count_of_xla(built, frozen, batch):
    params = jax.eval_shape(built.init, jax.random.key(0))
    keys = jax.eval_shape(lambda: rng.example_keys(jax.random.key(0), "train", 0, 2))
    loss = jax.jit(lambda *arguments: built.loss(*arguments)[0])
    return loss.lower(params, frozen, batch, keys).cost_analysis()["flops"]


# GFLOP forward. torch: torch's FlopCounter on diffusers' networks with karlo's sizes.
@pytest.mark.parametrize(
    ("stage", "variant", "clip", "gflop", "tolerance"),
    [
        ("prior", "karlo", "vit_l14", 164.42, 1e-4),  # torch
        # torch, whose count leaves out 0.2 GFLOP of conditioning outside the U-Net
        pytest.param("decoder", "karlo", "vit_l14", 608.30, 1e-3, marks=pytest.mark.slow),
        pytest.param("decoder", "paper", "vit_h16", 2220, 2e-3, marks=pytest.mark.slow),
        pytest.param("upsampler", "paper_256", "vit_h16", 531, 2e-3, marks=pytest.mark.slow),
        pytest.param("upsampler", "paper_1024", "vit_h16", 1240, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_presets_cost_what_is_published(stage, variant, clip, gflop, tolerance):
    built, frozen, batch = preset(stage, variant, clip)
    counted = stage_flops(built, frozen, batch).trained / 1e9
    assert counted == pytest.approx(gflop, rel=tolerance)


def test_activations_of_a_known_network():
    """tanh(x w): the backward pass keeps x (an argument) and tanh's result, in every row."""

    def init(key):
        return {"w": jnp.zeros((5, 7))}

    def loss(params, frozen, batch, keys):
        return jnp.tanh(batch["image_16"].astype(jnp.float32)[:, 0, :5, 0] @ params["w"]).sum(1), {}

    toy = stages.Stage("toy", None, init, loss)
    cost = stage_cost(toy, {}, {"image_16": shape(3, 16, 16, 3, dtype=jnp.uint8)})
    assert (cost.parameters, cost.parameter_bytes) == (35, 140)
    # x [5] and one of tanh or 1 - tanh^2 [7] per row, float32.
    assert cost.activation_bytes in (4 * (5 + 7), 4 * (5 + 7 + 7))
    assert cost.flops == Flops(trained=2 * 5 * 7)


def test_rematerialisation_keeps_less_and_costs_no_flops():
    costs = [
        stage_cost(*preset("prior", "tiny", **{"model.remat": policy}))
        for policy in ("none", "norms", "full")
    ]
    none, norms, full = (c.activation_bytes for c in costs)
    assert none > norms > full
    assert len({c.flops for c in costs}) == 1


def test_the_batch_does_not_change_the_cost_of_an_example():
    built, frozen, batch = preset("prior", "tiny")
    wide = jax.tree.map(lambda x: shape(6, *x.shape[1:], dtype=x.dtype), batch)
    small, large = stage_cost(built, frozen, batch), stage_cost(built, frozen, wide)
    assert small.flops == large.flops
    assert small.activation_bytes == pytest.approx(large.activation_bytes, rel=1e-3)


def test_arrays_fill_up_the_tiles_of_a_tpu():
    """[B, 5, 1] and [B, 5, 7] take a whole tile of 8 x 128 for each example."""

    def init(key):
        return {"v": jnp.zeros(7), "w": jnp.zeros((5, 7))}

    def loss(params, frozen, batch, keys):
        x = batch["image_16"].astype(jnp.float32)[:, 0, :5, :1]
        outer = x * params["v"][None, None]  # keeps x
        return (jnp.square(outer) * params["w"][None]).sum((1, 2)), {}  # keeps [B, 5, 7]

    toy = stages.Stage("toy", None, init, loss)
    batch = {"image_16": shape(8, 16, 16, 3, dtype=jnp.uint8)}
    exact, tiled = stage_cost(toy, {}, batch), stage_cost(toy, {}, batch, (8, 128))
    matrices = (exact.activation_bytes / 4 - 5) / (5 * 7)
    assert matrices in (1, 2, 3)
    assert tiled.activation_bytes == 4 * (1 + matrices) * 8 * 128
    assert tiled.flops == exact.flops


def test_full_remat_reaches_the_decoders_own_text_encoder():
    """Each of its layers keeps its input alone for the backward pass."""
    tokens, width = 16, 32
    small = {
        "model.text_encoder": "trained",
        "model.context_length": str(tokens),
        "model.text_width": str(width),
        "model.text_heads": "2",
        "model.remat": "full",
    }
    kept = [
        stage_cost(*preset("decoder", "tiny", **small, **{"model.text_layers": str(layers)}))
        for layers in (1, 3)
    ]
    grown = kept[1].activation_bytes - kept[0].activation_bytes
    assert grown == pytest.approx(2 * tokens * width * 4, rel=0.05)
