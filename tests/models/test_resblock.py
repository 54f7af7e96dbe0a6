"""The residual block: what it starts as, what it computes, and whose dropout is whose."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.models.dropout import active_dropout_keys, dropout
from unclip_jax.models.remat import rematerialised
from unclip_jax.models.resblock import ResBlock

SHAPE = (2, 4, 6, 8)


def arguments():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=SHAPE), jnp.float32), jnp.asarray(
        rng.normal(size=(2, 5)), jnp.float32
    )


def resampled(x, how):
    """2x2 means or repeated values, in numpy."""
    if how == "down":
        return sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    return x.repeat(2, axis=1).repeat(2, axis=2) if how == "up" else x


@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_a_new_block_is_its_skip_path(resample):
    x, embedding = arguments()
    x = jnp.round(x * 256) / 256  # means of four are exact, in whatever order they are summed
    block = ResBlock(8, resample, groups=4)
    params = block.init(jax.random.key(0), x, embedding)
    wanted = resampled(np.asarray(x), resample)
    np.testing.assert_array_equal(block.apply(params, x, embedding), wanted)


def convolve(x, kernel, bias):
    """3x3 correlation with zero borders, tap by tap in float64."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    return sum(taps) + bias


def norm_silu(x, params, modulation=(0.0, 0.0)):
    grouped = x.reshape(*x.shape[:3], 2, -1)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    variance = grouped.var((1, 2, 4), keepdims=True)
    y = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    y = (y * params["scale"] + params["bias"]) * (1 + modulation[0]) + modulation[1]
    return y / (1 + np.exp(-y))


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_equals_the_formula_in_float64(random_params, scale_shift, resample, claim):
    x, embedding = arguments()
    block = ResBlock(4, resample, scale_shift, groups=2)
    params = random_params(lambda: block.init(jax.random.key(0), x, embedding))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    time = np.asarray(embedding, np.float64) @ p["time_proj"]["kernel"] + p["time_proj"]["bias"]
    time = time[:, None, None, :]

    skip = resampled(np.asarray(x, np.float64), resample)
    h = resampled(norm_silu(np.asarray(x, np.float64), p["norm1"]), resample)
    h = convolve(h, **p["conv1"])
    h = (
        norm_silu(h, p["norm2"], np.split(time, 2, axis=-1))
        if scale_shift
        else norm_silu(h + time, p["norm2"])
    )
    wanted = skip @ p["skip"]["kernel"][0, 0] + p["skip"]["bias"] + convolve(h, **p["conv2"])
    got = block.apply({"params": params}, x, embedding)
    claim.near("residual block", "loops over taps in float64", got, wanted, bound=1e-5)


def test_a_rows_mask_depends_on_its_key_alone():
    keys = lambda: jax.random.split(jax.random.key(0), 4)  # noqa: E731
    x = jnp.ones((4, 64, 32))
    whole = dropout(x, 0.25, keys())
    np.testing.assert_array_equal(whole[2:3], dropout(x[2:3], 0.25, keys()[2:3]))
    assert (whole[0] != whole[1]).any()
    kept = np.asarray(whole) != 0
    assert abs(kept.mean() - 0.75) < 0.015  # 3 standard deviations of 8192 draws
    np.testing.assert_allclose(np.asarray(whole)[kept], 1 / 0.75, rtol=1e-6)


class Two(nn.Module):
    """Two blocks side by side."""

    remat: str = "none"

    @nn.compact
    def __call__(self, x, embedding, keys):
        block = functools.partial(
            rematerialised(ResBlock, self.remat), features=8, groups=4, dropout=0.5
        )
        return block(name="a")(x, embedding, keys), block(name="b")(x, embedding, keys)


def test_masks_belong_to_a_blocks_place_in_the_network(random_params):
    """Two blocks with equal weights and inputs differ by their names only."""
    x, embedding = arguments()
    keys = jax.random.split(jax.random.key(1), 2)
    params = random_params(lambda: Two().init(jax.random.key(0), x, embedding, None))
    params["b"] = params["a"]
    calm = Two().apply({"params": params}, x, embedding, None)
    np.testing.assert_array_equal(*calm)
    first, second = Two().apply({"params": params}, x, embedding, keys)
    assert (first != second).any()
    again, _ = Two(remat="full").apply({"params": params}, x, embedding, keys)
    np.testing.assert_allclose(first, again, rtol=1e-5, atol=1e-6)


def test_dropout_needs_keys_only_when_it_is_on():
    keys = jax.random.split(jax.random.key(0), 2)
    assert active_dropout_keys(0.1, True, keys) is None
    assert active_dropout_keys(0.0, False, None) is None
    assert active_dropout_keys(0.1, False, keys) is keys
    with pytest.raises(ValueError, match="needs dropout_keys"):
        active_dropout_keys(0.1, False, None)
