"""Decoding: picture modes against values known by construction, sizes against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from unclip_jax.data import images
from unclip_jax.data.fields import BadSample
from unclip_jax.data.images import Crop, decode_image


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height, width):
    """Low-frequency picture: what any good resize agrees on."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y), np.sin(3 * x * y + 1)]
    return (127.5 + 100 * np.stack(waves, -1)).round().astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-6))


@pytest.mark.parametrize("quality", [1, 2])
@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (129, 255)])
def test_jpeg_is_close_to_a_full_decode(shape, quality):
    data = saved(Image.fromarray(smooth(*shape)), "JPEG", quality=95)
    side = min(shape)
    left, top = (shape[1] - side) / 2, (shape[0] - side) / 2
    full = Image.open(io.BytesIO(data)).convert("RGB")
    box = (left, top, left + side, top + side)
    images = decode_image(data, (64, 32), quality=quality)
    for image, size in zip(images, (64, 32), strict=True):
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        reference = np.asarray(full.resize((size, size), Image.Resampling.BICUBIC, box=box))
        assert psnr(image, reference) > 38


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_lossless_formats_are_exact(kind):
    pixels = smooth(32, 32)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(pixels), kind, **options)
    np.testing.assert_array_equal(decode_image(data, (32,))[0], pixels)


def flat(mode, value):
    return Image.new(mode, (16, 16), value)


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        (saved(flat("L", 100), "PNG"), (100, 100, 100), 0),
        (saved(flat("L", 100), "JPEG"), (100, 100, 100), 1),
        (saved(flat("1", 1), "PNG"), (255, 255, 255), 0),
        (saved(flat("LA", (40, 0)), "PNG"), (255, 255, 255), 0),
        (saved(flat("RGBA", (200, 0, 0, 255)), "PNG"), (200, 0, 0), 0),
        (saved(flat("RGBA", (200, 0, 0, 0)), "PNG"), (255, 255, 255), 0),
        (saved(flat("RGBA", (200, 100, 0, 51)), "PNG"), (244, 224, 204), 1),
        (saved(flat("RGBA", (200, 0, 0, 0)), "WEBP", lossless=True), (255, 255, 255), 0),
        (saved(flat("I;16", 300 * 257 // 2), "PNG"), (150, 150, 150), 0),
        (saved(flat("CMYK", (0, 0, 0, 0)), "JPEG"), (255, 255, 255), 1),
        (saved(flat("CMYK", (255, 0, 0, 0)), "JPEG"), (0, 255, 255), 1),
    ],
)
def test_modes(data, expected, tolerance):
    image = decode_image(data, (16,))[0].astype(int)
    assert np.abs(image - expected).max() <= tolerance


def test_palette_with_transparency():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    image.putpixel((0, 0), 0)
    out = decode_image(saved(image, "PNG", transparency=0), (16,))[0]
    assert out[0, 0].tolist() == [255, 255, 255]
    assert out[5, 5].tolist() == [10, 200, 30]


def test_animation_gives_its_first_frame():
    frames = [flat("RGB", (c, 0, 0)) for c in (10, 250)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(data, (16,))[0][0, 0].tolist() == [10, 0, 0]


def test_exif_rotation_is_ignored():
    image = Image.fromarray(smooth(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = saved(image, "JPEG", exif=exif), saved(image, "JPEG")
    np.testing.assert_array_equal(decode_image(turned, (32,)), decode_image(plain, (32,)))


def test_named_jpg_but_png():
    """The bytes decide, not the name; the decoder never sees a name."""
    pixels = smooth(20, 20)
    np.testing.assert_array_equal(
        decode_image(saved(Image.fromarray(pixels), "PNG"), (20,))[0], pixels
    )


def test_upscaling_small_pictures():
    assert decode_image(saved(flat("RGB", (9, 9, 9)), "JPEG"), (64,))[0].shape == (64, 64, 3)
    assert decode_image(saved(Image.new("RGB", (1, 1)), "PNG"), (8,))[0].shape == (8, 8, 3)


def test_crop_and_flip():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 100
    pixels[:, 40:] = 200
    data = saved(Image.fromarray(pixels), "PNG")
    values = [decode_image(data, (20,), crop=Crop(x=x))[0].mean() for x in (0.0, 0.5, 1.0)]
    assert values == [0, 100, 200]
    left_half = Crop(scale=0.5, x=0.0, y=0.0)
    assert left_half.box(20, 60) == (0, 0, 10)
    plain = decode_image(data, (20,), crop=Crop(x=0.75))[0]
    flipped = decode_image(data, (20,), crop=Crop(x=0.75, flip=True))[0]
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    assert plain[0, 0, 0] != plain[0, -1, 0]


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_crop_of_a_scaled_jpeg_is_the_right_place_and_sharp(scale):
    """Stripes of five output pixels survive only in a crop decoded at no less than its size."""
    side = scale * 512
    y, x = np.mgrid[:512, :768] * (2 * np.pi * 64 / side / 5)
    waves = 127 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    pixels = waves.round().astype(np.uint8)
    data = saved(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0)
    crop = Crop(scale=scale, x=0.9, y=0.2)
    left, top, side = crop.box(512, 768)
    box = (left, top, left + side, top + side)
    reference = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC, box=box)
    assert psnr(decode_image(data, (64,), crop=crop)[0], np.asarray(reference)) > 30


GOOD = saved(Image.fromarray(smooth(64, 64)), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image_decode"),
        (b"<html>404</html>", "image_decode"),
        (GOOD[: len(GOOD) * 6 // 10], "image_decode"),
        (GOOD[:-4], "image_decode"),
        (GOOD[:300] + b"\0\xff\xd9" * 50 + GOOD[450:], "image_decode"),
        (GOOD[:3], "image_decode"),
        (saved(Image.fromarray(smooth(64, 64)), "PNG")[:500], "image_decode"),
        (saved(Image.new("1", (12_000, 12_000)), "PNG"), "image_too_large"),
        (saved(Image.new("1", (20_000, 20_000)), "PNG"), "image_too_large"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_pictures(data, reason):
    with pytest.raises(BadSample) as error:
        decode_image(data, (32,))
    assert error.value.reason == reason


def test_limits():
    with pytest.raises(BadSample, match="image_too_small"):
        decode_image(GOOD, (32,), min_side=65)
    with pytest.raises(BadSample, match="image_too_large"):
        decode_image(GOOD, (32,), max_pixels=64 * 64 - 1)


def test_long_pictures_and_large_files_are_bad_only_if_asked(monkeypatch):
    data = saved(Image.fromarray(smooth(40, 100)), "JPEG")
    assert decode_image(data, (8,))[0].shape == (8, 8, 3)
    assert decode_image(data, (8,), max_aspect=2.5)[0].shape == (8, 8, 3)
    with pytest.raises(BadSample, match="image_too_long: 100x40"):
        decode_image(data, (8,), max_aspect=2.4)
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    with pytest.raises(BadSample, match=f"image_too_large: {len(data)} bytes"):
        decode_image(data, (8,))
