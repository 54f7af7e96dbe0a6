"""Corruption of the upsampler's small pictures: against Pillow, SciPy and closed forms."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import multivariate_normal

from unclip_jax import stages
from unclip_jax.config import load_config
from unclip_jax.core import rng
from unclip_jax.diffusion import make_schedule
from unclip_jax.errors import UserError
from unclip_jax.stages import degradation, upsampler
from unclip_jax.stages.jpeg import jpeg, quantisation
from unclip_jax.stages.sampling import make_plan


def photo(side=40, seed=0):
    """Smooth coloured waves with a sharp edge, uint8."""
    y, x = np.mgrid[:side, :side] / side
    shift = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(9 * x + 5 * y + s) + (x > 0.6) * 0.5 for s in shift]
    return (np.stack(waves, -1) * 60 + 120).clip(0, 255).astype(np.uint8)


def keys(count, step=0):
    return rng.example_keys(jax.random.key(0), "train", step, count)


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
def test_jpeg_is_what_pillow_does(quality):
    picture = photo(36)  # no multiple of 8
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(buffer)).astype(int)
    tables = Image.open(buffer).quantization
    np.testing.assert_array_equal(quantisation(jnp.int32(quality))[0].ravel(), tables[0])
    np.testing.assert_array_equal(quantisation(jnp.int32(quality))[1].ravel(), tables[1])
    found = jax.jit(jpeg)(jnp.asarray(picture) / 127.5 - 1, jnp.int32(quality))
    difference = np.abs(np.round((np.asarray(found) + 1) * 127.5) - expected)
    # libjpeg's integer DCT rounds a coefficient near the middle of two steps to the other one.
    assert difference.mean() < 0.35
    assert (difference > 2).mean() < 0.05
    moved = np.abs(picture.astype(int) - expected).mean()
    assert difference.mean() < moved / 2


@pytest.mark.parametrize("size", [12, 17, 24])
def test_rescaling_is_pillows_bilinear_down_and_up(size):
    picture = photo(24)[..., 0].astype(np.float32)
    image = Image.fromarray(picture)
    small = image.resize((size, size), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((24, 24), Image.Resampling.BILINEAR))
    found = degradation.rescale(jnp.repeat(jnp.asarray(picture)[..., None], 3, 2), size)
    np.testing.assert_allclose(found[..., 1], expected, atol=2e-3)


def test_the_kernel_is_a_turned_gaussian():
    kernel = degradation.gaussian_kernel(jnp.array([2.0, 0.7]), jnp.float32(0.5))
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    covariance = turn @ np.diag([4.0, 0.49]) @ turn.T
    x, y = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
    density = multivariate_normal([0, 0], covariance).pdf(np.dstack([x, y]))
    np.testing.assert_allclose(kernel, density / density.sum(), atol=1e-6)


def test_blur_is_a_gaussian_of_three_taps():
    picture = jnp.zeros((1, 7, 7, 1)).at[0, 3, 3, 0].set(1.0)
    blurred = degradation.blur(picture, 0.6)[0, :, :, 0]
    taps = np.exp(-0.5 * np.array([-1.0, 0, 1]) ** 2 / 0.36)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    np.testing.assert_allclose(blurred[2:5, 2:5], kernel, rtol=1e-6)
    assert abs(float(blurred.sum()) - 1) < 1e-6
    np.testing.assert_allclose(degradation.blur(jnp.ones((1, 4, 4, 3)), 0.6), 1.0, rtol=1e-6)


def test_every_example_is_degraded_by_its_own_key():
    high = jnp.repeat(jnp.asarray(photo(32))[None] / 127.5 - 1, 6, 0)
    degrade = jax.jit(lambda high, keys: degradation.bsr(high, 8, keys))
    small = degrade(high, keys(6))
    assert small.shape == (6, 8, 8, 3)
    assert np.abs(small).max() <= 1
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_array_equal(degrade(high, keys(6)[order]), small[order])
    clean = degradation.shrink(high, 8)
    errors = np.abs(small - clean).mean((1, 2, 3))
    assert (errors > 0.005).all()
    assert len(set(errors.tolist())) == 6
    assert np.abs(np.mean(small - clean)) < 0.1  # worse, but of the same brightness


def config(**settings):
    return load_config("upsampler:tiny", {k.replace("__", "."): v for k, v in settings.items()})


def test_noise_follows_the_schedule():
    """`steps` of the process: the last step's table entry is `steps` - 1."""
    tiny = config(model__noise_augmentation="0.5")
    low = jnp.full((3, 8, 8, 3), 0.25)
    noisy = upsampler.add_noise(tiny, low, jnp.array([0, 1, 300]), keys(3))
    np.testing.assert_array_equal(noisy[0], low[0])
    noise = rng.normal(rng.fold_in_name(keys(3), "augmentation noise"), (8, 8, 3))
    for row, entry in ((1, 0), (2, 299)):
        alpha_bar = make_schedule("cosine", 1000).alpha_bars[entry]
        expected = np.sqrt(alpha_bar) * 0.25 + np.sqrt(1 - alpha_bar) * noise[row]
        np.testing.assert_allclose(noisy[row], expected, atol=1e-5)


@pytest.mark.parametrize("corruption", ["none", "blur", "bsr"])
def test_training_runs_with_every_corruption(corruption):
    tiny = config(model__noise_augmentation="0.5", model__corruption=corruption)
    stage = stages.build(tiny)
    params = jax.eval_shape(stage.init, jax.random.key(0))
    assert "noise_embedding" in params
    batch = {"image_16": jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)}
    loss, _ = jax.eval_shape(stage.loss, params, {}, batch, keys(4))
    assert (loss.shape, loss.dtype) == ((4,), np.float32)


def test_sampling_puts_the_asked_noise_on_the_small_picture(monkeypatch):
    given = []
    monkeypatch.setattr(
        upsampler, "draw", lambda net, conditions, *_, **__: given.append(conditions)
    )
    tiny = config(model__noise_augmentation="0.5")
    low = jnp.full((2, 8, 8, 3), 0.25)
    for level in (0.0, 0.3):
        sampling = dataclasses.replace(tiny.sampling, low_noise=level)
        plan = make_plan(tiny, sampling)
        upsampler.sample_upsampler(tiny, tiny.model, {}, low, keys(2), plan)
    clean, noisy = (conditions.cond for conditions in given)
    np.testing.assert_array_equal(clean["low_res"], low)
    np.testing.assert_array_equal(clean["noise_level"], [0, 0])
    np.testing.assert_allclose(noisy["noise_level"], [0.3, 0.3])
    expected = upsampler.add_noise(tiny, low, jnp.array([300, 300]), keys(2))
    np.testing.assert_array_equal(noisy["low_res"], expected)
    plain = config()
    plan = make_plan(plain)
    upsampler.sample_upsampler(plain, plain.model, {}, low, keys(2), plan)
    assert list(given[-1].cond) == ["low_res"]


def test_levels_that_the_network_does_not_know_are_refused():
    with pytest.raises(UserError, match=r"low_noise=0\.2 must be between 0 and"):
        config(sampling__low_noise="0.2")
    with pytest.raises(UserError, match=r"noise_augmentation: must be in \[0, 1\)"):
        config(model__noise_augmentation="1.0")
