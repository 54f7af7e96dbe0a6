"""CLIP: an image tower and a text tower whose embeddings of a matching pair point the same way.

Image: square patches, linearly embedded, behind a learned class token, with learned positions;
a norm, a transformer, a norm of the class token, a projection to D. Text: a causal `TextTower`
whose state at the end-of-text token is projected to D. Embeddings are returned as they come out,
**not** normalised: losses and similarities normalise, karlo's prior and decoder do not.

`TextFeatures.states` are the last hidden states after the final norm: what karlo's prior and
decoder read (Hugging Face calls them `last_hidden_state`).

Images come in [-1, 1] like everywhere else; CLIP's own mean and standard deviation are applied
inside. Other sizes than `image_size` are an error: resize on purpose with `resize_for_clip`.

Initialisation: patches LeCun normal, class and position embeddings N(0, 1/W), projections
N(0, 1/W) of their tower's width W, logit_scale ln(1/0.07), the rest as in `transformer` and
`text_tower`. The original leaves its image transformer at PyTorch's defaults; here both towers
start by the one documented rule.

Source: Radford et al. 2021, arXiv 2103.00020; sizes from OpenAI's release and open_clip's
model_configs; "ViT-H/16@256" is the one of unCLIP, arXiv 2204.06125, appendix C.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from unclip_jax.errors import UserError
from unclip_jax.models.resize import resize_bicubic
from unclip_jax.models.text_tower import EOT_ID, VOCAB_SIZE, TextFeatures, TextTower
from unclip_jax.models.transformer import Norm, Transformer

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


def _size(
    image: tuple[int, int],
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    embedding_dim: int,
    activation: str = "quick_gelu",
) -> dict[str, Any]:
    """Attributes of a `Clip` from (image size, patch size) and (width, layers, heads) twice."""
    return {
        "image_size": image[0],
        "patch_size": image[1],
        "vision_width": vision[0],
        "vision_layers": vision[1],
        "vision_heads": vision[2],
        "text_width": text[0],
        "text_layers": text[1],
        "text_heads": text[2],
        "embedding_dim": embedding_dim,
        "activation": activation,
    }


# OpenAI trained with QuickGELU, LAION (H, bigG) with the exact one.
CLIP_SIZES: dict[str, dict[str, Any]] = {
    "tiny": _size((32, 8), (64, 2, 2), (64, 2, 2), 32),
    "small": _size((64, 8), (256, 6, 4), (256, 6, 4), 256),
    "ViT-B/32": _size((224, 32), (768, 12, 12), (512, 12, 8), 512),
    "ViT-B/16": _size((224, 16), (768, 12, 12), (512, 12, 8), 512),
    "ViT-L/14": _size((224, 14), (1024, 24, 16), (768, 12, 12), 768),
    "ViT-L/14@336": _size((336, 14), (1024, 24, 16), (768, 12, 12), 768),
    "ViT-H/14": _size((224, 14), (1280, 32, 16), (1024, 24, 16), 1024, "gelu"),
    "ViT-H/16@256": _size((256, 16), (1280, 32, 16), (1024, 24, 16), 1024, "gelu"),
    "ViT-bigG/14": {
        **_size((224, 14), (1664, 48, 16), (1280, 32, 20), 1280, "gelu"),
        "vision_mlp_dim": 8192,
    },
}


def resize_for_clip(images: Float[Array, "b h w 3"], size: int) -> Float[Array, "b size size 3"]:
    """Centre-crops to a square and resizes, bicubic with antialiasing; [-1, 1] stays [-1, 1].

    Bicubic kernels overshoot at edges, so the result is clipped as an 8-bit picture would be.
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, top : top + side, left : left + side]
    return jnp.clip(resize_bicubic(square, size, size), -1.0, 1.0)


class VisionTower(nn.Module):
    """Pictures [B, S, S, 3] in [-1, 1] -> the normed class token [B, W]."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_dim: int | None = None
    activation: str = "gelu"
    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b w"]:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        patch, width = (self.patch_size, self.patch_size), self.width
        mean, std = (jnp.asarray(x, images.dtype) for x in (IMAGE_MEAN, IMAGE_STD))
        x = ((images + 1) / 2 - mean[None, None, None]) / std[None, None, None]
        x = nn.Conv(width, patch, patch, "VALID", use_bias=False, name="patch_embedding", **dtypes)(
            x
        )
        x = x.reshape(x.shape[0], -1, width)
        scaled = nn.initializers.normal(width**-0.5)
        token = self.param("class_embedding", scaled, (width,), self.param_dtype)
        token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([token, x], axis=1)
        shape = (x.shape[1], width)
        positions = self.param("position_embedding", scaled, shape, self.param_dtype)
        x = Norm(name="norm_pre", **dtypes)(x + positions[None].astype(self.dtype))
        x = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            name="transformer",
            **dtypes,
        )(x)
        return Norm(name="norm_post", **dtypes)(x[:, 0])


class Clip(nn.Module):
    """Both towers; `Clip(**CLIP_SIZES["ViT-L/14"])` is OpenAI's.

    Attributes:
      eot_id: token that ends a text; text embeddings are read there.
      initial_logit_scale: ln of the inverse temperature to start from (SigLIP: ln 10).
      initial_logit_bias: the sigmoid loss's bias to start from (SigLIP: -10); None has no bias.
      vision_mlp_dim, text_mlp_dim: hidden sizes of the MLPs; None means 4 times the width.
      scan_layers, remat, attention: see `Transformer`.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embedding_dim: int
    vision_mlp_dim: int | None = None
    text_mlp_dim: int | None = None
    context_length: int = 77
    vocab_size: int = VOCAB_SIZE
    eot_id: int = EOT_ID
    activation: str = "gelu"
    initial_logit_scale: float = INITIAL_LOGIT_SCALE
    initial_logit_bias: float | None = None
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        shared: dict[str, Any] = {
            "activation": self.activation,
            "scan_layers": self.scan_layers,
            "remat": self.remat,
            "attention": self.attention,
            **dtypes,
        }
        self.vision = VisionTower(
            image_size=self.image_size,
            patch_size=self.patch_size,
            width=self.vision_width,
            layers=self.vision_layers,
            heads=self.vision_heads,
            mlp_dim=self.vision_mlp_dim,
            **shared,
        )
        self.text = TextTower(
            width=self.text_width,
            layers=self.text_layers,
            heads=self.text_heads,
            mlp_dim=self.text_mlp_dim,
            context_length=self.context_length,
            vocab_size=self.vocab_size,
            eot_id=self.eot_id,
            causal=True,
            **shared,
        )
        self.vision_projection = self._projection(self.vision_width)
        self.text_projection = self._projection(self.text_width)
        constant = nn.initializers.constant
        scale = constant(self.initial_logit_scale)
        self.logit_scale = self.param("logit_scale", scale, (), self.param_dtype)
        self.logit_bias = (
            None
            if self.initial_logit_bias is None
            else self.param("logit_bias", constant(self.initial_logit_bias), (), self.param_dtype)
        )

    def _projection(self, width: int) -> nn.Dense:
        init = nn.initializers.normal(width**-0.5)
        return nn.Dense(
            self.embedding_dim,
            use_bias=False,
            kernel_init=init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    def encode_image(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b d"]:
        """Image embeddings, float32, not normalised, of images in [-1, 1].

        Raises:
          UserError: if the images are not image_size x image_size x 3.
        """
        wanted = (self.image_size, self.image_size, 3)
        if images.shape[1:] != wanted:
            raise UserError(
                f"CLIP takes images of shape {wanted}, not {tuple(images.shape[1:])}: "
                f"resize_for_clip(images, {self.image_size}) makes them fit"
            )
        return _at_least_float32(self.vision_projection(self.vision(images)))

    def encode_text(self, tokens: Int[Array, "b l"]) -> TextFeatures:
        """Text embeddings (float32, not normalised), last hidden states (compute dtype), mask."""
        features = self.text(tokens)
        projected = self.text_projection(features.embedding)
        return features._replace(embedding=_at_least_float32(projected))

    def __call__(
        self, images: Float[Array, "b s s 3"], tokens: Int[Array, "b l"]
    ) -> tuple[Array, Array, Array, Array | None]:
        """(image embeddings [B, D], text embeddings [B, D], logit_scale, logit_bias or None).

        Embeddings are not normalised and logit_scale is the logarithm, as `contrastive` wants.
        """
        image = self.encode_image(images)
        text = self.encode_text(tokens).embedding
        return image, text, self.logit_scale, self.logit_bias


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
