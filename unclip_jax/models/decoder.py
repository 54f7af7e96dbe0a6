"""The unCLIP decoder: a U-Net conditioned on a CLIP image embedding and, if wanted, on the caption.

The image embedding z enters twice: projected and added to the time embedding, and projected to a
few extra context tokens (four in the paper), which stand before the text tokens:

    embedding = time(t) + W_z z (+ W_p pooled text)
    context   = [tokens(z); text tokens]

Text is one of three things, `text_encoder`:
    "none"      no text at all
    "states"    hidden states of a frozen CLIP text encoder, projected and layer-normalised (karlo)
    "trained"   a text tower trained with the decoder on the tokens, as GLIDE has (the paper)

For guidance either condition can be dropped, each on its own (paper section 2.1). A dropped image
embedding is replaced by the null embedding before anything is made of it, so it is gone from the
time embedding and from the tokens alike; a dropped caption is replaced in its pooled form, its
tokens and its mask, so that not even its length remains.

Extra tokens: element `channel * tokens + token` of the projection is channel `channel` of token
`token`, the order of karlo's and diffusers' weights.

Source: Ramesh et al. 2022 (arXiv 2204.06125) section 2.1; karlo-v1-alpha for "states" and its norm.
"""

from typing import TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from unclip_jax.errors import UserError
from unclip_jax.models.conditioning import ImageConditioning, TextConditioning, check_choice
from unclip_jax.models.dropout import active_dropout_keys
from unclip_jax.models.text_tower import TextTower
from unclip_jax.models.unet import UNet

T = TypeVar("T")
TEXT_ENCODERS = ("none", "states", "trained")


class Decoder(nn.Module):
    """Predicts the noise (and variance) of an image, given its CLIP embedding and its caption.

    Attributes:
      unet: the network; its dtypes are the decoder's.
      context_width: width of the context tokens.
      image_tokens: how many tokens the image embedding becomes.
      null_image: "learned" (starts at zero) or "zeros", what stands for a dropped embedding.
      text_encoder: "none", "states" or "trained".
      text_tower: the text encoder for "trained", of width `context_width`; None otherwise.
      pooled_text: whether the pooled text embedding is added to the time embedding.
      null_text: "learned", what stands for a dropped caption, or "none": the decoder has no null
        caption of its own and is given the features of the empty caption instead (karlo).
    """

    unet: UNet
    context_width: int
    image_tokens: int = 4
    null_image: str = "learned"
    text_encoder: str = "states"
    text_tower: TextTower | None = None
    pooled_text: bool = True
    null_text: str = "learned"

    @property
    def down_factor(self) -> int:
        """What the height and width of an image must be divisible by."""
        return self.unet.down_factor

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, "b h w c"],
        t: Int[Array, " b"],
        *,
        image_embedding: Float[Array, "b d"],
        text_embedding: Float[Array, "b p"] | None = None,
        text_states: Float[Array, "b l s"] | None = None,
        text_mask: Bool[Array, "b l"] | None = None,
        tokens: Int[Array, "b l"] | None = None,
        drop_image: Bool[Array, " b"] | None = None,
        drop_text: Bool[Array, " b"] | None = None,
        deterministic: bool = True,
        dropout_keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w out"]:
        """Applies the decoder; the result has the dtype of x_t.

        Args:
          x_t: noisy images, [-1, 1] plus noise, of any size divisible by `down_factor`.
          t: timesteps.
          image_embedding: CLIP image embeddings, scaled as in training.
          text_embedding: pooled text features for "states" with `pooled_text`.
          text_states, text_mask: text features for "states"; the mask is True for real tokens, None
            for all of them.
          tokens: token ids for "trained".
          drop_image, drop_text: True where the condition is dropped; None drops nothing. Text
            arguments mean nothing to a decoder without text.
          deterministic: False switches dropout on, which then needs `dropout_keys`.
          dropout_keys: one key per example.

        Raises:
          UserError: if a text argument that the decoder needs is missing, or a caption is dropped
            without a null for it.
        """
        keys = active_dropout_keys(self.unet.dropout, deterministic, dropout_keys)
        context, embedding = self._image_conditioning()(image_embedding, drop_image)
        mask = None
        features = self._text_features(text_embedding, text_states, text_mask, tokens)
        if features is not None:
            states, mask, pooled = self._text_conditioning()(*features, drop_text)
            context = jnp.concatenate([context, states], axis=1)
            mask = jnp.pad(mask, ((0, 0), (self.image_tokens, 0)), constant_values=True)
            embedding = embedding if pooled is None else embedding + pooled
        return self.unet(
            x_t, t, embedding=embedding, context=context, context_mask=mask, dropout_keys=keys
        )

    def _text_features(
        self,
        embedding: Array | None,
        states: Array | None,
        mask: Array | None,
        tokens: Array | None,
    ) -> tuple[Array, Array, Array | None] | None:
        """States [B, L, S], mask [B, L] and pooled text [B, P] or None; None without text."""
        check_choice("text_encoder", self.text_encoder, TEXT_ENCODERS)
        if self.text_encoder == "none":
            return None
        if self.text_encoder == "trained":
            tower = _require(self.text_tower, "text_tower", self.text_encoder)
            embedding, states, mask = tower(_require(tokens, "tokens", self.text_encoder))
            # Learned embeddings of padding are context like any other.
            if tower.padding == "learned" and not tower.causal:
                mask = None
        states = _require(states, "text_states", self.text_encoder)
        if mask is None:
            mask = jnp.ones(states.shape[:2], bool)
        if not self.pooled_text:
            return states, mask, None
        return states, mask, _require(embedding, "text_embedding", self.text_encoder)

    def _image_conditioning(self) -> ImageConditioning:
        return ImageConditioning(
            width=self.context_width,
            embedding_width=self.unet.embedding_width,
            tokens=self.image_tokens,
            null=self.null_image,
            dtype=self.unet.dtype,
            param_dtype=self.unet.param_dtype,
            name="image",
        )

    def _text_conditioning(self) -> TextConditioning:
        return TextConditioning(
            width=self.context_width,
            embedding_width=self.unet.embedding_width,
            project=self.text_encoder == "states",
            null=self.null_text,
            dtype=self.unet.dtype,
            param_dtype=self.unet.param_dtype,
            name="text",
        )


def _require(value: T | None, name: str, text_encoder: str) -> T:
    if value is None:
        raise UserError(f"decoder: text_encoder={text_encoder!r} needs {name}, which was not given")
    return value
