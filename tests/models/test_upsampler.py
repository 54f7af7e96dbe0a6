"""Upsamplers: diffusers' recorded outputs, Pillow's bicubic filter, crops, and the noise level."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.models import EfficientUNet, UNet, Upsampler, resize_bicubic

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "unet_upsampler.npz"
TINY = UNet(3, 8, (1, 2), 1, (), mid_attention=False, norm_groups=4)


def inputs(size=8, low=4):
    rng = np.random.default_rng(0)
    return {
        "x_t": rng.normal(size=(2, size, size, 3)).astype(np.float32),
        "t": np.array([5, 800], np.int32),
        "low_res": rng.uniform(-1, 1, (2, low, low, 3)).astype(np.float32),
    }


def build(random_params, unet=TINY, **options):
    """apply(given, **more) with random weights."""
    upsampler = Upsampler(unet, **options)
    level = {"noise_level": np.zeros(2, np.float32)} if options else {}
    params = random_params(lambda: upsampler.init(jax.random.key(0), **inputs(16), **level))
    return jax.jit(lambda given: upsampler.apply({"params": params}, **given))


@pytest.mark.parametrize("size", [(20, 12), (5, 7), (10, 30), (3, 2)])
def test_resizing_equals_pillows_bicubic(size):
    image = np.random.default_rng(0).uniform(-1, 1, (10, 12, 2)).astype(np.float32)
    wanted = np.stack(
        [
            Image.fromarray(image[..., c]).resize(size[::-1], Image.Resampling.BICUBIC)
            for c in range(2)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(resize_bicubic(image[None], *size)[0], wanted, atol=2e-6)


def test_equals_diffusers_recorded_outputs(random_params):
    recorded = dict(np.load(VECTORS))
    wanted = recorded.pop("wanted")
    unet = UNet(3, 8, (1, 2, 3), 2, (), mid_attention=False, scale_shift=False, norm_groups=4)
    upsampler = Upsampler(unet)
    params = random_params(lambda: upsampler.init(jax.random.key(0), **recorded))
    got = jax.jit(lambda given: upsampler.apply({"params": params}, **given))(recorded)
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_small_image_is_seen_and_batches_do_not_mix(random_params):
    apply, given = build(random_params), inputs()
    changed = given | {"low_res": given["low_res"] * np.array([1, -1])[:, None, None, None]}
    differs = (apply(given) != apply(changed | {"low_res": changed["low_res"].astype("f4")})).any(
        (1, 2, 3)
    )
    assert differs.tolist() == [False, True]


def test_an_image_of_the_right_size_is_taken_as_it_is(random_params):
    """Equal sizes make the filter the identity, so [x_t, low_res] is what the U-Net sees."""
    given = inputs(low=8)
    upsampler = Upsampler(TINY)
    params = random_params(lambda: upsampler.init(jax.random.key(0), **given))
    x = np.concatenate([given["x_t"], given["low_res"]], axis=-1)
    wanted = jax.jit(TINY.apply)({"params": params["unet"]}, x, given["t"])
    got = jax.jit(lambda given: upsampler.apply({"params": params}, **given))(given)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_training_crops_and_whole_images_share_parameters():
    for unet in (TINY, EfficientUNet(3, 8, (1, 2), (1, 1), norm_groups=4)):
        small, large = (
            jax.eval_shape(lambda n=n, u=unet: Upsampler(u).init(jax.random.key(0), **inputs(n)))
            for n in (8, 32)
        )
        assert small == large


def test_the_noise_level_is_told_apart(random_params):
    apply = build(random_params, noise_conditioning=True)
    clean, noisy = (
        apply(inputs() | {"noise_level": np.array([0.1, level], np.float32)}) for level in (0, 0.5)
    )
    assert (clean != noisy).any((1, 2, 3)).tolist() == [False, True]


def test_mistakes_have_clear_errors():
    init = lambda upsampler, **more: jax.eval_shape(  # noqa: E731
        lambda: upsampler.init(jax.random.key(0), **inputs(), **more)
    )
    with pytest.raises(UserError, match="noise_conditioning=True was not given a noise_level"):
        init(Upsampler(TINY, noise_conditioning=True))
    with pytest.raises(UserError, match="noise_conditioning=False was given a noise_level"):
        init(Upsampler(TINY), noise_level=jnp.zeros(2))


def test_published_sizes():
    """karlo's to the last parameter; the paper's "700M" and "300M" with a learned variance."""

    def count(*unet, **options):
        upsampler = Upsampler(UNet(*unet, attention_factors=(), mid_attention=False, **options))
        given = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in inputs(64, 16).items()}
        init = lambda given: upsampler.init(jax.random.key(0), **given)["params"]  # noqa: E731
        return trees.count(jax.eval_shape(init, given))

    assert count(3, 320, scale_shift=False) == 691_579_523
    assert round(count(6, 320) / 1e6) == 730
    assert round(count(6, 192, (1, 1, 2, 2, 4, 4), 2) / 1e6) == 282
