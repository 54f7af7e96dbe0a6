"""The diffusion prior: which image embedding goes with this text?

A causal transformer reads one sequence and predicts the clean image embedding from its last token:

    [ text states 1..L | text embedding | timestep | noised image embedding x_t | query ]

Every position is projected to the width and gets a learned position. A position sees those before
it, but no padding of the text; the query, a learned vector, therefore sees all that is real. The
output is x0 directly, whose mean squared error is the loss. The noised embedding is never dropped.

Text may be dropped per example for classifier-free guidance. With `null_text="learned"` a dropped
example gets a learned text embedding and learned states in the place of its own, all of them
visible; with "none" the caller passes the encoding of the empty text instead, as karlo does.

The text is read from CLIP (`text_encoder="clip"`: states and mask are arguments) or from a text
encoder that is trained with the prior ("trained": token ids are the argument), as in the paper.

Size: karlo's width 2048, 20 layers, 32 heads, 77 tokens, 768-d CLIP make 1,022,028,544 parameters.
diffusers counts 1,022,030,080 in the same net, because it stores the mean and standard deviation of
CLIP's image embeddings (2 x 768 numbers, not trained) among them. The learned null adds 78 x 768.

Initialisation: position, query N(0, 0.01^2), as karlo; nulls 0; projections LeCun normal, biases 0;
transformer and text encoder as documented there. No published prior starts from a zero output.

Source: unCLIP, arXiv 2204.06125, section 2.2 and appendix C; karlo-v1-alpha.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from unclip_jax.errors import UserError
from unclip_jax.models.embeddings import TimeEmbedding
from unclip_jax.models.text_tower import EOT_ID, VOCAB_SIZE, TextTower
from unclip_jax.models.transformer import Norm, Transformer, causal_mask

EXTRA_TOKENS = 4  # text embedding, timestep, noised image embedding, query


class PriorTransformer(nn.Module):
    """Predicts x0 [B, D] from x_t [B, D]; see the module's docstring.

    Attributes:
      embedding_dim: D of the image embedding; the text embedding may have another size.
      context_length: L, the number of text states or tokens, padding included.
      text_encoder: "clip" (states are given) or "trained" (tokens are given).
      text_width, text_layers, text_heads, vocab_size, eot_id: of the trained text encoder.
      null_text: "learned" or "none".
      scan_layers, remat, attention: see `Transformer`; they hold for the text encoder too.
    """

    embedding_dim: int
    width: int
    layers: int
    heads: int
    context_length: int = 77
    text_encoder: str = "clip"
    text_width: int = 2048
    text_layers: int = 24
    text_heads: int = 32
    vocab_size: int = VOCAB_SIZE
    eot_id: int = EOT_ID
    null_text: str = "learned"
    activation: str = "gelu"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_t: Float[Array, "b d"],
        t: Int[Array, " b"],
        *,
        text_embedding: Float[Array, "b e"],
        text_states: Float[Array, "b l w"] | None = None,
        text_mask: Bool[Array, "b l"] | None = None,
        tokens: Int[Array, "b l"] | None = None,
        drop_text: Bool[Array, " b"] | None = None,
    ) -> Float[Array, "b d"]:
        """Predicts the clean image embedding, float32.

        Args:
          x_t: noised image embeddings.
          t: timesteps, 0 the cleanest.
          text_embedding: CLIP's text embedding.
          text_states, text_mask: CLIP's last hidden states and which of them are real tokens.
          tokens: token ids, in the place of the two above, for a trained text encoder.
          drop_text: True for examples whose text is replaced by the learned null.

        Raises:
          UserError: if text comes in another form or length than the attributes say.
        """
        text_states, text_mask = self._text(tokens, text_states, text_mask)
        text_embedding, text_states, text_mask = self._drop(
            drop_text, text_embedding, text_states, text_mask
        )
        small = nn.initializers.normal(0.01)
        length = self.context_length + EXTRA_TOKENS
        query = self.param("query", small, (self.width,), self.param_dtype).astype(self.dtype)
        time = TimeEmbedding(self.width, self.width, name="time_embedding", **self._dtypes())(t)
        sequence = [
            self._dense("text_states_in", self.width)(text_states),
            self._dense("text_embedding_in", self.width)(text_embedding)[:, None],
            time[:, None],
            self._dense("image_embedding_in", self.width)(x_t)[:, None],
            jnp.broadcast_to(query, (x_t.shape[0], 1, self.width)),
        ]
        shape = (length, self.width)
        positions = self.param("position_embedding", small, shape, self.param_dtype)
        x = jnp.concatenate(sequence, axis=1) + positions[None].astype(self.dtype)
        visible = jnp.pad(text_mask, ((0, 0), (0, EXTRA_TOKENS)), constant_values=True)
        x = self._transformer()(x, causal_mask(length) & visible[:, None, None])
        x = Norm(name="norm_final", **self._dtypes())(x[:, -1])
        out = self._dense("out", self.embedding_dim)(x)
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))

    def _drop(
        self, drop: Array | None, embedding: Array, states: Array, mask: Array
    ) -> tuple[Array, Array, Array]:
        """Replaces the text of dropped examples by the learned null."""
        if self.null_text == "none":
            if drop is not None:
                raise UserError(
                    "this prior has no learned null text (null_text='none'): pass the encoding of "
                    "the empty text for dropped examples instead of drop_text"
                )
            return embedding, states, mask
        zeros = nn.initializers.zeros
        null_embedding = self.param(
            "null_text_embedding", zeros, embedding.shape[1:], self.param_dtype
        )
        null_states = self.param("null_text_states", zeros, states.shape[1:], self.param_dtype)
        if drop is None:
            return embedding, states, mask
        return (
            jnp.where(drop[:, None], null_embedding[None].astype(embedding.dtype), embedding),
            jnp.where(drop[:, None, None], null_states[None].astype(states.dtype), states),
            mask | drop[:, None],
        )

    def _text(
        self, tokens: Array | None, states: Array | None, mask: Array | None
    ) -> tuple[Array, Array]:
        """Text states and mask from wherever this prior reads them, checked."""
        for name, value, valid in (
            ("text_encoder", self.text_encoder, ("clip", "trained")),
            ("null_text", self.null_text, ("learned", "none")),
        ):
            if value not in valid:
                raise UserError(f"unknown {name} {value!r}; use one of {valid}")
        if self.text_encoder == "trained":
            if tokens is None:
                raise UserError("a prior with text_encoder='trained' needs token ids (tokens=)")
            features = self._text_tower()(tokens)
            states, mask = features.states, features.mask
        if states is None or mask is None:
            raise UserError("a prior with text_encoder='clip' needs text_states and text_mask")
        if states.shape[1] != self.context_length:
            raise UserError(
                f"the prior's context_length is {self.context_length} but the text has "
                f"{states.shape[1]} tokens: tokenize to that length"
            )
        return states, mask

    def _text_tower(self) -> TextTower:
        return TextTower(
            width=self.text_width,
            layers=self.text_layers,
            heads=self.text_heads,
            context_length=self.context_length,
            vocab_size=self.vocab_size,
            eot_id=self.eot_id,
            padding="mask",
            activation=self.activation,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            name="text_encoder",
            **self._dtypes(),
        )

    def _transformer(self) -> Transformer:
        return Transformer(
            layers=self.layers,
            heads=self.heads,
            activation=self.activation,
            scan_layers=self.scan_layers,
            remat=self.remat,
            attention=self.attention,
            name="transformer",
            **self._dtypes(),
        )

    def _dense(self, name: str, features: int) -> nn.Dense:
        return nn.Dense(features, name=name, **self._dtypes())

    def _dtypes(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}
