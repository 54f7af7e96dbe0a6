"""The published packages the emoji set is drawn from, and the styles they hold.

Every package is pinned by version and by the SHA-512 of its tarball in the form npm calls
"integrity" (subresource integrity: the algorithm, a dash, the digest in base64).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from unclip_jax.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Package:
    """One npm package: `name@version`, whose tarball must have the digest `integrity`."""

    name: str
    version: str
    integrity: str

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Style:
    """One way of drawing all emoji: where the pictures are, and under which terms.

    Args:
      words: how captions name the style; "taco, <words>".
      package: the package that holds the pictures.
      layout: how that package stores them: "iconify", "files" or "openmoji" (see catalog.py).
      license: SPDX identifier of the artwork's licence.
      credit: copyright holder of the artwork.
      source: where the artwork comes from.
      codes_from: for an iconify package without Unicode codes, the package whose icon names it
        shares.
    """

    words: str
    package: Package
    layout: str
    license: str
    credit: str
    source: str
    codes_from: Package | None = None


def _iconify(name: str, version: str, integrity: str) -> Package:
    return Package(f"@iconify-json/{name}", version, f"sha512-{integrity}")


NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
_NOTO = _iconify(
    "noto",
    "1.2.9",
    "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
)
_FLUENT_FLAT = _iconify(
    "fluent-emoji-flat",
    "1.2.6",
    "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
)
_FLUENT_COLOR = _iconify(
    "fluent-emoji",
    "1.2.7",
    "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
)
_FLUENT_3D = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
)
_TWEMOJI = _iconify(
    "twemoji",
    "1.2.5",
    "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
)
_EMOJIONE = _iconify(
    "emojione",
    "1.2.3",
    "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
)
_OPENMOJI = Package(
    "openmoji",
    "17.0.0",
    "sha512-EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
)

_MICROSOFT = "Microsoft Corporation"
_FLUENT_SOURCE = "https://github.com/microsoft/fluentui-emoji"

STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "noto": Style(
            "noto style",
            _NOTO,
            "iconify",
            "Apache-2.0",
            "Google Inc",
            "https://github.com/googlefonts/noto-emoji",
        ),
        "fluent-3d": Style(
            "fluent 3d style", _FLUENT_3D, "files", "MIT", _MICROSOFT, _FLUENT_SOURCE
        ),
        "fluent-color": Style(
            "fluent color style",
            _FLUENT_COLOR,
            "iconify",
            "MIT",
            _MICROSOFT,
            _FLUENT_SOURCE,
            codes_from=_FLUENT_FLAT,
        ),
        "fluent-flat": Style(
            "fluent flat style", _FLUENT_FLAT, "iconify", "MIT", _MICROSOFT, _FLUENT_SOURCE
        ),
        "twemoji": Style(
            "twemoji style",
            _TWEMOJI,
            "iconify",
            "CC-BY-4.0",
            "Twitter, Inc and other contributors",
            "https://github.com/jdecked/twemoji",
        ),
        "openmoji": Style(
            "openmoji style",
            _OPENMOJI,
            "openmoji",
            "CC-BY-SA-4.0",
            "OpenMoji, HfG Schwaebisch Gmuend and contributors",
            "https://openmoji.org",
        ),
        "emojione": Style(
            "emojione style",
            _EMOJIONE,
            "iconify",
            "CC-BY-4.0",
            "EmojiOne (2.3), now EmojiTwo contributors",
            "https://github.com/EmojiTwo/emojitwo",
            codes_from=_TWEMOJI,
        ),
    }
)

PERMISSIVE_STYLES: tuple[str, ...] = ("noto", "fluent-3d", "fluent-color", "fluent-flat")


def resolve_styles(names: Iterable[str]) -> tuple[str, ...]:
    """The named styles, each once, in the order of `STYLES`.

    Raises:
      UserError: an unknown name, or no name at all.
    """
    wanted = set(names)
    for name in sorted(wanted - set(STYLES)):
        raise UserError(f"unknown emoji style {name!r}{did_you_mean(name, STYLES)}")
    if not wanted:
        raise UserError(f"no emoji style given (valid: {', '.join(STYLES)})")
    return tuple(name for name in STYLES if name in wanted)


def required_packages(styles: Iterable[str]) -> tuple[Package, ...]:
    """Every package needed to draw `styles`, the one with the names first, without repetition."""
    needed = [NAMES]
    for name in styles:
        style = STYLES[name]
        needed += [style.package] + ([style.codes_from] if style.codes_from else [])
    return tuple(dict.fromkeys(needed))
