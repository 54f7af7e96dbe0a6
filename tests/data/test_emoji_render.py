"""Drawing: colours, coverage, centring, smooth edges, checked on shapes with known areas."""

import io

import numpy as np
import pytest
from PIL import Image

from unclip_jax.data.emoji.draw import draw_all
from unclip_jax.data.emoji.render import picture_format, render, renderer_version
from unclip_jax.errors import UserError


def svg(body: str, width: int = 32, height: int = 32) -> bytes:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{body}</svg>'
    ).encode()


def pixels(encoded: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(encoded))
    assert image.mode == "RGB"
    return np.asarray(image)


def test_colours_and_white_ground_are_exact():
    left_half = svg('<rect width="16" height="32" fill="#c81e5a"/>')
    drawn = pixels(render(left_half, 64))
    assert drawn.shape == (64, 64, 3)
    assert (drawn[:, :28] == (200, 30, 90)).all()
    assert (drawn[:, 36:] == 255).all()


def test_a_disc_covers_the_area_of_a_disc():
    disc = svg('<circle cx="16" cy="16" r="12" fill="black"/>')
    ink = 1 - pixels(render(disc, 64))[..., 0] / 255
    assert ink.sum() == pytest.approx(np.pi * 24**2, rel=2e-3)


def test_edges_of_masks_are_smooth():
    # A hard mask: drawn at its final size, the renderer leaves only full and empty pixels there.
    body = (
        '<mask id="m"><circle cx="16" cy="16" r="12" fill="white" shape-rendering="crispEdges"/>'
        '</mask><rect width="32" height="32" fill="black" mask="url(#m)"/>'
    )
    values = pixels(render(svg(body), 64))[..., 0]
    assert ((values > 20) & (values < 235)).sum() > 60


def test_half_transparent_ink_blends_with_white():
    body = '<rect width="32" height="32" fill="#000" fill-opacity="0.5"/>'
    drawn = pixels(render(svg(body), 64))
    assert abs(int(drawn[32, 32, 0]) - 127) <= 1


def test_a_wide_picture_is_centred():
    drawn = pixels(render(svg('<rect width="32" height="16" fill="#00f"/>', 32, 16), 64))
    assert (drawn[:14] == 255).all()
    assert (drawn[50:] == 255).all()
    assert (drawn[18:46] == (0, 0, 255)).all()


def test_webp_with_transparency():
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[:64] = (10, 200, 60, 255)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "WEBP", lossless=True)
    drawn = pixels(render(buffer.getvalue(), 64))
    assert (drawn[:28] == (10, 200, 60)).all()
    assert (drawn[36:] == 255).all()


def test_large_pictures_are_jpeg_without_chroma_subsampling():
    stripes = "".join(f'<rect x="{2 * i}" width="1" height="32" fill="red"/>' for i in range(16))
    encoded = render(svg(stripes), 128)
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, picture_format(128), picture_format(64)) == ("JPEG", "jpg", "png")
    assert [component[1:3] for component in image.layer] == [(1, 1)] * 3
    assert image.info.get("exif") is None


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot draw"):
        render(b"not a picture", 64)
    with pytest.raises(UserError, match="noto_1f32e: libvips cannot draw"):
        draw_all([(tmp_path / "noto_1f32e.png", b"bad")], 64, 1, lambda *_: None)


def test_drawing_skips_what_is_there_and_reports_it(tmp_path):
    source = svg('<rect width="32" height="32"/>')
    jobs = [(tmp_path / f"{number}.png", source) for number in range(40)]
    jobs[0][0].write_bytes(b"drawn before")
    said = []
    draw_all(jobs, 64, 1, lambda *report: said.append(report))
    assert said == [("draw", 1, 40), ("draw", 33, 40), ("draw", 40, 40)]
    assert jobs[0][0].read_bytes() == b"drawn before"
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"}


def test_the_renderer_has_a_version():
    name, version = renderer_version().split()
    assert name == "libvips"
    assert len(version.split(".")) == 3
