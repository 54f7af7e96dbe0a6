"""The networks, in flax linen; parameters are plain nested dicts and no flax type leaves here."""

from unclip_jax.models.attention import dot_product_attention
from unclip_jax.models.clip import CLIP_SIZES, Clip, resize_for_clip
from unclip_jax.models.contrastive import (
    clamp_logit_scale,
    clip_loss,
    encode_in_chunks,
    l2_normalize,
    retrieval_hits,
    ring_clip_loss,
    ring_retrieval_hits,
    ring_siglip_loss,
    siglip_loss,
)
from unclip_jax.models.decoder import Decoder
from unclip_jax.models.efficient_unet import EfficientUNet
from unclip_jax.models.embeddings import timestep_embedding
from unclip_jax.models.normalization import group_norm
from unclip_jax.models.params import stack_layers, unstack_layers
from unclip_jax.models.prior import PriorTransformer
from unclip_jax.models.resize import resize_bicubic
from unclip_jax.models.text_tower import TextFeatures, TextTower
from unclip_jax.models.unet import UNet
from unclip_jax.models.upsampler import Upsampler
from unclip_jax.models.winograd import fewer_multiplications

__all__ = [
    "CLIP_SIZES",
    "Clip",
    "Decoder",
    "EfficientUNet",
    "PriorTransformer",
    "TextFeatures",
    "TextTower",
    "UNet",
    "Upsampler",
    "clamp_logit_scale",
    "clip_loss",
    "dot_product_attention",
    "encode_in_chunks",
    "fewer_multiplications",
    "group_norm",
    "l2_normalize",
    "resize_bicubic",
    "resize_for_clip",
    "retrieval_hits",
    "ring_clip_loss",
    "ring_retrieval_hits",
    "ring_siglip_loss",
    "siglip_loss",
    "stack_layers",
    "timestep_embedding",
    "unstack_layers",
]
