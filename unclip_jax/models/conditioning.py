"""What the decoder is told, as context tokens and as a vector beside the time embedding.

Each kind of conditioning, image and text, becomes both, and can be dropped example by example for
classifier-free guidance. Dropping happens before anything else is computed from the condition, or
replaces everything that was, mask included: nothing of a dropped condition reaches the network.

All Dense kernels are lecun-normal, biases zero. Null embeddings start at zero (so "learned" starts
as the paper's "zero"), the null text token at N(0, 1), the scale of the layer-normalised tokens
that it stands among.

Source: Ramesh et al. 2022 (arXiv 2204.06125) section 2.1; Ho and Salimans 2022 (2207.12598).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from unclip_jax.errors import UserError, did_you_mean

NULL_IMAGES = ("learned", "zeros")
NULL_TEXTS = ("learned", "none")


def check_choice(what: str, value: str, valid: tuple[str, ...]) -> None:
    """Raises UserError unless `value` is one of the valid ones."""
    if value not in valid:
        raise UserError(f"unknown {what} {value!r}{did_you_mean(value, valid)}")


class ImageConditioning(nn.Module):
    """CLIP image embedding [B, D] -> context tokens [B, N, W] and embedding [B, E].

    Attributes:
      width: W, of the context tokens.
      embedding_width: E, of the time embedding.
      tokens: N.
      null: "learned" or "zeros", what stands for a dropped embedding.
    """

    width: int
    embedding_width: int
    tokens: int = 4
    null: str = "learned"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "b d"], drop: Bool[Array, " b"] | None
    ) -> tuple[Float[Array, "b n w"], Float[Array, "b e"]]:
        """Projects the embedding, or the null embedding where `drop` is True."""
        check_choice("null_image", self.null, NULL_IMAGES)
        null = jnp.zeros(embedding.shape[-1:], embedding.dtype)
        if self.null == "learned":
            null = self.param("null", nn.initializers.zeros, null.shape, self.param_dtype)
        if drop is not None:
            embedding = jnp.where(drop[:, None], null[None].astype(embedding.dtype), embedding)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        tokens = nn.Dense(self.width * self.tokens, name="tokens_proj", **dtypes)(embedding)
        tokens = tokens.reshape(-1, self.width, self.tokens).swapaxes(1, 2)
        return tokens, nn.Dense(self.embedding_width, name="embedding_proj", **dtypes)(embedding)


class TextConditioning(nn.Module):
    """Text states [B, L, S] and pooled text [B, P] -> tokens [B, L, W] and embedding [B, E].

    Attributes:
      width: W, of the context tokens.
      embedding_width: E, of the time embedding.
      project: whether states are projected to W and layer-normalised; otherwise S must be W.
      null: "learned", or "none": then nothing can be dropped.
    """

    width: int
    embedding_width: int
    project: bool = True
    null: str = "learned"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "b l s"],
        mask: Bool[Array, "b l"],
        pooled: Float[Array, "b p"] | None,
        drop: Bool[Array, " b"] | None,
    ) -> tuple[Float[Array, "b l w"], Bool[Array, "b l"], Float[Array, "b e"] | None]:
        """Returns tokens, their mask, and the embedding (None without pooled text).

        A dropped caption leaves one visible token, the null token, whatever the caption's length.

        Raises:
          UserError: if captions are dropped and `null` is "none".
        """
        check_choice("null_text", self.null, NULL_TEXTS)
        if drop is not None and self.null == "none":
            raise UserError(
                "this decoder has null_text='none', so captions cannot be dropped: "
                "give it the features of the empty caption instead, or train with 'learned'"
            )
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.project:
            states = nn.Dense(self.width, name="states_proj", **dtypes)(states)
            states = nn.LayerNorm(
                epsilon=1e-5, use_fast_variance=False, name="states_norm", **dtypes
            )(states)
        if self.null == "learned":
            states, mask, pooled = self._replace_dropped(states, mask, pooled, drop)
        if pooled is None:
            return states, mask, None
        return states, mask, nn.Dense(self.embedding_width, name="pooled_proj", **dtypes)(pooled)

    def _replace_dropped(
        self, states: Array, mask: Array, pooled: Array | None, drop: Array | None
    ) -> tuple[Array, Array, Array | None]:
        """Puts the null caption where `drop` is True; its parameters exist even if none is."""
        null_token = self.param(
            "null_token", nn.initializers.normal(1.0), (self.width,), self.param_dtype
        )
        if pooled is not None:
            null_pooled = self.param(
                "null_pooled", nn.initializers.zeros, pooled.shape[-1:], self.param_dtype
            )
        if drop is None:
            return states, mask, pooled
        only_first = jnp.arange(mask.shape[1])[None] == 0
        states = jnp.where(drop[:, None, None], null_token[None, None].astype(states.dtype), states)
        mask = jnp.where(drop[:, None], only_first, mask)
        if pooled is not None:
            pooled = jnp.where(drop[:, None], null_pooled[None].astype(pooled.dtype), pooled)
        return states, mask, pooled
