"""The Efficient U-Net: what it promises in structure and cost, and its mathematics at one level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.models import EfficientUNet, UNet
from unclip_jax.models.embeddings import TimeEmbedding
from unclip_jax.models.resblock import ResBlock

TINY = {"out_channels": 2, "channels": 8, "multipliers": (1, 2), "depths": (1, 2)}
TINY |= {"norm_groups": 4, "head_dim": 4}


def inputs(size=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    return {"x": x, "t": np.array([5, 800], np.int32)}


def shapes(net, given):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), **given))["params"]


def test_blocks_sit_where_depths_and_factors_say():
    names = set(shapes(EfficientUNet(**TINY, attention_factors=(4,)), inputs()))
    assert names == {
        *("conv_in", "time_embedding", "norm_out", "conv_out"),
        *("down_0_conv", "down_0_res_0", "up_0_res_0", "up_0_conv"),
        *("down_1_conv", "down_1_res_0", "down_1_res_1", "down_1_attention"),
        *("up_1_res_0", "up_1_res_1", "up_1_attention", "up_1_conv"),
    }


def conv(x, params, stride=1):
    y = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + params["bias"][None, None, None]


def test_one_level_resamples_outside_its_blocks_and_scales_its_skips(random_params):
    """A net of one level, put together from its parts in the order that the paper gives."""
    net = EfficientUNet(2, 8, (2,), (1,), norm_groups=4)
    given = inputs(4) | {"embedding": np.ones((2, 32), np.float32)}
    params = random_params(lambda: net.init(jax.random.key(0), **given))
    got = jax.jit(net.apply)({"params": params}, **given)

    p = jax.tree.map(jnp.asarray, params)
    time = TimeEmbedding(8, 32).apply({"params": p["time_embedding"]}, given["t"])
    time = jax.nn.silu(time + given["embedding"])
    block = lambda name, h: ResBlock(16, groups=4).apply(  # noqa: E731
        {"params": p[name]}, h, time
    )
    stem = conv(jnp.asarray(given["x"]), p["conv_in"])
    skip = block("down_0_res_0", conv(stem, p["down_0_conv"], stride=2))
    assert skip.shape == (2, 2, 2, 16)
    h = block("up_0_res_0", jnp.concatenate([skip, skip / np.sqrt(2)], -1))
    h = conv(h.repeat(2, axis=1).repeat(2, axis=2), p["up_0_conv"])
    h = np.asarray(jnp.concatenate([h, stem / np.sqrt(2)], -1), np.float64)
    grouped = h.reshape(2, 4, 4, 4, 6)
    mean, variance = (f(grouped, (1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    h = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(h.shape)
    h = h * params["norm_out"]["scale"] + params["norm_out"]["bias"]
    h = jnp.asarray(h / (1 + np.exp(-h)), jnp.float32)
    np.testing.assert_allclose(got, conv(h, p["conv_out"]), rtol=1e-4, atol=1e-5)


def test_takes_every_argument_that_the_unet_takes(random_params):
    """Same signature, and each condition reaches the prediction."""
    net = EfficientUNet(**TINY, attention_factors=(2,), dropout=0.5)
    rng = np.random.default_rng(1)
    given = inputs() | {
        "embedding": rng.normal(size=(2, 32)).astype(np.float32),
        "context": rng.normal(size=(2, 3, 5)).astype(np.float32),
        "context_mask": np.array([[True, True, False]] * 2),
    }
    params = random_params(lambda: net.init(jax.random.key(0), **given))
    apply = jax.jit(net.apply)
    first = apply({"params": params}, **given)
    for name in ("embedding", "context"):
        changed = apply({"params": params}, **given | {name: -given[name]})
        assert (first != changed).any((1, 2, 3)).all()
    keys = jax.random.split(jax.random.key(0), 2)
    assert (first != apply({"params": params}, **given, dropout_keys=keys)).any()


def test_is_cheaper_than_the_unet_of_its_size():
    """Imagen's figure is 2 to 3 times faster steps; FLOPs at 64 px fall by more than 8 times."""
    given = {
        "x": jax.ShapeDtypeStruct((1, 64, 64, 6), jnp.float32),
        "t": jax.ShapeDtypeStruct((1,), jnp.int32),
    }

    def cost(net):
        params = jax.eval_shape(lambda g: net.init(jax.random.key(0), **g), given)
        flops = jax.jit(net.apply).lower(params, **given).cost_analysis()["flops"]
        return trees.count(params), flops

    parameters, flops = cost(EfficientUNet(6, channels=160))
    unet_parameters, unet_flops = cost(UNet(6, 320, attention_factors=(), mid_attention=False))
    assert abs(parameters / unet_parameters - 1) < 0.06
    assert flops < unet_flops / 8


def test_mistakes_have_clear_errors():
    with pytest.raises(UserError, match="1 depths for 2 multipliers"):
        shapes(EfficientUNet(**TINY | {"depths": (1,)}), inputs())
    with pytest.raises(UserError, match=r"6 x 6 px .* divisible by 4"):
        shapes(EfficientUNet(**TINY), inputs(6))
