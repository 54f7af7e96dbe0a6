"""Winograd's convolutions: exact on small integers, taken where they pay, and only there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from unclip_jax.models import UNet, fewer_multiplications, winograd


def integers(seed, *shape):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32)


def direct(x, kernel):
    """The definition: nine shifted products."""
    b, h, w, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((b, h, w, kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + h, j : j + w] @ kernel[i, j].astype(np.float64)
    return y


@pytest.mark.parametrize("shape", [(2, 8, 8, 5), (1, 2, 6, 3), (3, 4, 2, 1)])
def test_it_is_the_convolution_to_the_last_bit_where_sums_are_exact(shape):
    x, kernel = integers(0, *shape), integers(1, 3, 3, shape[-1], 4)
    found = winograd.convolve(x, winograd.transform_kernel(kernel))
    np.testing.assert_array_equal(found, direct(x, kernel))


def test_the_transformed_kernel_is_g_times_kernel_times_g():
    kernel = integers(2, 3, 3, 2, 3)
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    found = winograd.transform_kernel(kernel)
    np.testing.assert_array_equal(found, np.einsum("ia,abco,jb->ijco", g, kernel, g))


def test_real_numbers_are_as_near_to_float64_as_xla_s_own():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 16, 16, 64)).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, 64, 64)) / 24).astype(np.float32)
    wanted = direct(x, kernel)
    plain = np.abs(winograd.plain_convolve(x, kernel) - wanted).max()
    ours = np.abs(winograd.convolve(x, winograd.transform_kernel(kernel)) - wanted).max()
    assert ours < 4 * plain
    assert ours < 1e-5


def convolutions(layer, x, platform="cpu"):
    """How many convolutions of XLA's own a layer has inside the context."""
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def apply(params, x):
        with fewer_multiplications():
            return layer.apply(params, x)

    return (
        export.export(jax.jit(apply), platforms=[platform])(params, x)
        .mlir_module()
        .count("stablehlo.convolution(")
    )


def image(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


BIG = image(1, 32, 32, 64)


def test_large_layers_on_cpus_take_it():
    assert convolutions(nn.Conv(64, (3, 3)), BIG) == 0


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv(64, (3, 3)), image(1, 8, 8, 64)),
        (nn.Conv(64, (3, 3)), image(64, 8, 8, 64)),  # many examples make none of them large
        (nn.Conv(64, (3, 3)), image(1, 33, 32, 64)),
        (nn.Conv(64, (3, 3)), image(1, 32, 32, 64, dtype=jnp.bfloat16)),
        (nn.Conv(64, (3, 3), dtype=jnp.bfloat16), BIG),
        (nn.Conv(64, (3, 3), 2), BIG),
        (nn.Conv(64, (3, 3), padding="VALID"), BIG),
        (nn.Conv(64, (3, 3), kernel_dilation=2), BIG),
        (nn.Conv(128, (3, 3), feature_group_count=2), BIG),
        (nn.Conv(640, (1, 1)), BIG),
    ],
)
def test_others_stay_as_they_are(layer, x):
    assert convolutions(layer, x) == 1


def test_other_devices_and_programs_for_any_batch_stay_as_they_are():
    assert convolutions(nn.Conv(64, (3, 3)), BIG, "tpu") == 1
    (batch,) = export.symbolic_shape("b")
    assert convolutions(nn.Conv(64, (3, 3)), image(batch, 32, 32, 64)) == 1


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_layer_gives_the_same_inside_and_outside(use_bias):
    layer = nn.Conv(64, (3, 3), use_bias=use_bias, bias_init=nn.initializers.normal(1.0))
    x = integers(4, *BIG.shape)
    params = layer.init(jax.random.key(5), x)
    params = jax.tree.map(lambda p: jnp.round(p * 64), params)
    with fewer_multiplications():
        found = layer.apply(params, x)
    np.testing.assert_array_equal(found, layer.apply(params, x))


def test_a_network_gives_the_same_and_initialises_inside(monkeypatch):
    monkeypatch.setattr(winograd, "_LEAST_FLOPS", 0)
    net = UNet(
        channels=8, multipliers=(1,), depth=1, attention_factors=(), mid_attention=False,
        norm_groups=4, out_channels=3,
    )  # fmt: skip
    x, t = integers(6, 1, 8, 8, 3) / 8, jnp.zeros(1)

    def inside(function):
        def run(*arguments):
            with fewer_multiplications():
                return function(*arguments)

        return jax.jit(run)

    params = inside(net.init)(jax.random.key(0), x, t)
    params = jax.tree.map(lambda p: p + 0.03, params)  # the last layers start at zero
    assert "pad = [[1, 1]" not in inside(net.apply).lower(params, x, t).as_text()
    wanted = jax.jit(net.apply)(params, x, t)
    np.testing.assert_allclose(inside(net.apply)(params, x, t), wanted, rtol=1e-5, atol=1e-5)
