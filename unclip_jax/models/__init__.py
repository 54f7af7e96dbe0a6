"""The networks, in flax linen; parameters are plain nested dicts and no flax type leaves here."""

from unclip_jax.models.attention import dot_product_attention
from unclip_jax.models.clip import CLIP_SIZES, Clip, resize_for_clip
from unclip_jax.models.params import stack_layers, unstack_layers
from unclip_jax.models.prior import PriorTransformer
from unclip_jax.models.text_tower import TextFeatures, TextTower

__all__ = [
    "CLIP_SIZES",
    "Clip",
    "PriorTransformer",
    "TextFeatures",
    "TextTower",
    "dot_product_attention",
    "resize_for_clip",
    "stack_layers",
    "unstack_layers",
]
