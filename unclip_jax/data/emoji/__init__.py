"""The emoji set: `build_emoji_set(folder)` makes captioned pictures from published packages."""

from unclip_jax.data.emoji.build import build_emoji_set
from unclip_jax.data.emoji.emoji_set import SIZES, EmojiSet
from unclip_jax.data.emoji.packages import PERMISSIVE_STYLES, STYLES

__all__ = ["PERMISSIVE_STYLES", "SIZES", "STYLES", "EmojiSet", "build_emoji_set"]
