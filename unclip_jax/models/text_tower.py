"""Token ids -> one state per token and one vector for the text.

    states = norm_final(transformer(token_embedding[tokens] + position_embedding))

Two ways to treat what follows a text's end-of-text token (EOT):
- CLIP (`causal=True`): every token sees itself and those before it, so padding is never seen; the
  vector is the state at EOT.
- GLIDE (`causal=False`): every token sees all. With `padding="learned"` embeddings of padding are
  replaced by a learned vector per position and stay visible, and the vector is the last state,
  as GLIDE has it. With `padding="mask"` padding is hidden and the vector is the state at EOT.

Initialisation: token embedding N(0, 0.02^2), position and padding embeddings N(0, 0.01^2), the
transformer as documented there.

Sources: CLIP, arXiv 2103.00020, section 2.4; GLIDE, arXiv 2112.10741, section 3.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from unclip_jax.errors import UserError
from unclip_jax.models.transformer import Norm, Transformer, causal_mask

EOT_ID = 49407
VOCAB_SIZE = 49408
PADDINGS = ("mask", "learned")


class TextFeatures(NamedTuple):
    """What networks are told about a text.

    embedding: [B, D], the vector of the whole text.
    states: [B, L, W], the last hidden states, after the final norm.
    mask: [B, L], True for real tokens: everything up to and including EOT.
    """

    embedding: Float[Array, "b d"]
    states: Float[Array, "b l w"]
    mask: Bool[Array, "b l"]


def eot_positions(tokens: Int[Array, "b l"], eot_id: int = EOT_ID) -> Int[Array, " b"]:
    """Position of each text's first EOT; the last position where there is none.

    For the stock vocabulary, whose EOT is its largest id, this is the original's argmax of ids.
    """
    is_eot = tokens == eot_id
    return jnp.where(is_eot.any(axis=1), is_eot.argmax(axis=1), tokens.shape[1] - 1)


def token_mask(tokens: Int[Array, "b l"], eot_id: int = EOT_ID) -> Bool[Array, "b l"]:
    """True for every token up to and including the first EOT."""
    return jnp.arange(tokens.shape[1])[None] <= eot_positions(tokens, eot_id)[:, None]


class TextTower(nn.Module):
    """A transformer over tokens; see the module's docstring.

    Attributes:
      context_length: longest text in tokens; shorter arrays are taken as they are.
      eot_id: the token that ends a text.
      padding: "mask" or "learned"; of no effect when `causal`.
    """

    width: int
    layers: int
    heads: int
    context_length: int = 77
    vocab_size: int = VOCAB_SIZE
    eot_id: int = EOT_ID
    causal: bool = False
    padding: str = "learned"
    mlp_dim: int | None = None
    activation: str = "gelu"
    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> TextFeatures:
        """Encodes token ids; `embedding` has the tower's width. Results have the compute dtype.

        Raises:
          UserError: for texts longer than `context_length`, or an unknown `padding`.
        """
        length = tokens.shape[1]
        if length > self.context_length:
            raise UserError(
                f"texts of {length} tokens do not fit context_length {self.context_length}: "
                "tokenize to that length"
            )
        if self.padding not in PADDINGS:
            raise UserError(f"unknown padding {self.padding!r}; use one of {PADDINGS}")
        mask = token_mask(tokens, self.eot_id)
        x = self._embed(tokens, mask)
        x = Transformer(
            layers=self.layers,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="transformer",
        )(x, self._attention_mask(mask))
        states = Norm(dtype=self.dtype, param_dtype=self.param_dtype, name="norm_final")(x)
        if self._learned_padding:
            return TextFeatures(states[:, -1], states, mask)
        at_eot = eot_positions(tokens, self.eot_id)[:, None, None]
        return TextFeatures(jnp.take_along_axis(states, at_eot, axis=1)[:, 0], states, mask)

    @property
    def _learned_padding(self) -> bool:
        return self.padding == "learned" and not self.causal

    def _embed(self, tokens: Array, mask: Array) -> Array:
        length = tokens.shape[1]
        small = nn.initializers.normal(0.01)
        table = (self.context_length, self.width)
        x = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="token_embedding",
        )(tokens)
        positions = self.param("position_embedding", small, table, self.param_dtype)
        x = x + positions[None, :length].astype(self.dtype)
        if self._learned_padding:
            padding = self.param("padding_embedding", small, table, self.param_dtype)
            x = jnp.where(mask[..., None], x, padding[None, :length].astype(self.dtype))
        return x

    def _attention_mask(self, mask: Array) -> Array | None:
        if self.causal:
            return causal_mask(mask.shape[1])
        return None if self._learned_padding else mask[:, None, None, :]
