"""Drawing one picture: SVG or WEBP source to an encoded RGB square on white.

SVG is drawn at twice the wanted size and reduced: edges cut by SVG filters and masks are not
smoothed by the renderer and look like stairs otherwise. WEBP is reduced directly. Small pictures
are PNG: at 64 px that is exact and, measured over the whole set, smaller than JPEG; larger ones are
JPEG of quality 95 without chroma subsampling.
"""

from types import ModuleType
from typing import Any

from unclip_jax.errors import UserError

LARGEST_PNG = 64
_JPEG_QUALITY = 95
_OVERSAMPLING = 2


def picture_format(size: int) -> str:
    """The file extension of pictures of this size: "png" or "jpg"."""
    return "png" if size <= LARGEST_PNG else "jpg"


def load_vips() -> ModuleType:
    """The pyvips module.

    Raises:
      UserError: it, or the libvips library beneath it, is not installed.
    """
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise UserError(
            f"drawing the emoji set needs pyvips: pip install 'unclip_jax[emoji]' ({error})"
        ) from error
    return pyvips


def renderer_version() -> str:
    """The version of libvips, which the exact bytes of a picture depend on."""
    vips = load_vips()
    return "libvips " + ".".join(str(vips.version(part)) for part in range(3))


def render(source: bytes, size: int) -> bytes:
    """Draws `source` centred on a white square and encodes it.

    Args:
      source: an SVG or WEBP document, with or without transparency.
      size: side of the square in pixels.

    Raises:
      ValueError: libvips cannot draw it.
    """
    vips = load_vips()
    try:
        image = _load(vips, source, size)
        if image.hasalpha():
            image = image.flatten(background=[255])
        image = image.colourspace("srgb")
        image = image.gravity("centre", size, size, extend="background", background=[255])
        if picture_format(size) == "png":
            return image.pngsave_buffer(compression=9, keep="none")
        return image.jpegsave_buffer(Q=_JPEG_QUALITY, subsample_mode="off", keep="none")
    except vips.Error as error:
        raise ValueError(f"libvips cannot draw the picture: {error}".strip()) from error


def _load(vips: ModuleType, source: bytes, size: int) -> Any:
    if source.startswith(b"RIFF"):  # WEBP
        return vips.Image.thumbnail_buffer(source, size, height=size)
    fine = _OVERSAMPLING * size
    drawn = vips.Image.thumbnail_buffer(source, fine, height=fine)
    return drawn.thumbnail_image(size, height=size)
