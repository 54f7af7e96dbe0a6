"""Contrastive losses of image and text embeddings: softmax (CLIP) and sigmoid (SigLIP).

With unit vectors u_i (image) and v_j (text), inverse temperature e^s and logits
l_ij = e^s u_i . v_j (+ bias), the loss of pair i is

    softmax   1/2 [log sum_j exp(l_ij) - l_ii] + 1/2 [log sum_j exp(l_ji) - l_ii]
    sigmoid   -log sigma(l_ii) - sum_{j != i} log sigma(-l_ij) = sum_j softplus(l_ij) - l_ii

Embeddings are normalised here, in float32, so every caller passes what the towers return. s is
kept at or below ln 100, as in CLIP; `clamp_logit_scale` does it to the parameter after an update,
so that it stays able to fall (the loss alone would leave a parameter beyond the limit without
gradient).

A large batch comes in three ways, equal up to rounding in value and gradient:
- `clip_loss`, `siglip_loss`: all [B, B] logits at once, on whatever devices XLA lays them.
- `ring_clip_loss`, `ring_siglip_loss`: inside `shard_map`, with a part of the batch per device. The
  parts travel once around the ring of devices and no device ever holds more than a [b, b] block.
- `encode_in_chunks`: the towers run on a part of the batch at a time, forwards and again backwards
  (GradCache), so that memory for activations is that of one part.

Sources: CLIP, arXiv 2103.00020, figure 3 and section 2.5; SigLIP, arXiv 2303.15343, algorithm 1;
Gao et al. 2021 (GradCache), arXiv 2101.06983.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from unclip_jax.errors import UserError

MAX_LOGIT_SCALE = math.log(100.0)
_SMALLEST_NORM = 1e-6  # keeps the gradient of a zero embedding finite

AxisName = str | tuple[str, ...]
Valid = Bool[Array, " b"] | None
Block = tuple[Array, Valid]  # embeddings that travel, and which of them are no padding


def l2_normalize(z: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Unit vectors in float32 (float64 stays); the zero vector stays zero."""
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    squared = jnp.sum(z * z, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_NORM**2))


def clamp_logit_scale(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a `Clip` with logit_scale at most ln 100, to be taken after each update."""
    return {**params, "logit_scale": jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)}


def clip_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    *,
    valid: Valid = None,
) -> Float[Array, " b"]:
    """Softmax loss of each pair; row i of both arguments is pair i, all others are its negatives.

    Args:
      image, text: embeddings, of any length; they are normalised here.
      logit_scale: s, the logarithm of the inverse temperature.
      valid: False for rows that are padding and nobody's negatives; their losses mean nothing.
    """
    image, text = l2_normalize(image), l2_normalize(text)
    logits = _logits(image, text, logit_scale)
    rows = jax.nn.logsumexp(_hidden(logits, valid), axis=1)
    columns = jax.nn.logsumexp(_hidden(logits.T, valid), axis=1)
    return (rows + columns) / 2 - jnp.diagonal(logits)


def siglip_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    *,
    valid: Valid = None,
) -> Float[Array, " b"]:
    """Sigmoid loss of each pair: its own text against 1, all other texts against 0.

    Arguments as for `clip_loss`; logit_bias is added to every logit.
    """
    image, text = l2_normalize(image), l2_normalize(text)
    logits = _logits(image, text, logit_scale) + logit_bias
    others = jnp.sum(jax.nn.softplus(_hidden(logits, valid)), axis=1)
    return others - jnp.diagonal(logits)


def ring_clip_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    *,
    axis_name: AxisName,
    valid: Valid = None,
) -> Float[Array, " b"]:
    """`clip_loss` inside `shard_map`: this device's pairs against those of the whole axis.

    Args:
      image, text: this device's part of the batch; results are for these pairs.
      logit_scale: the same everywhere.
      axis_name: the mapped axis, or axes, over which the batch is split.
      valid: this device's part, see `clip_loss`.
    """
    image, text = l2_normalize(image), l2_normalize(text)

    def against(own: Array) -> Callable[[Block], Array]:
        def one(block: Block) -> Array:
            logits = _logits(own, block[0], logit_scale)
            return jax.nn.logsumexp(_hidden(logits, block[1]), axis=1)

        return one

    rows = _around_the_ring(against(image), jnp.logaddexp, (text, valid), axis_name)
    columns = _around_the_ring(against(text), jnp.logaddexp, (image, valid), axis_name)
    return (rows + columns) / 2 - _own_logits(image, text, logit_scale)


def ring_siglip_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    *,
    axis_name: AxisName,
    valid: Valid = None,
) -> Float[Array, " b"]:
    """`siglip_loss` inside `shard_map`; arguments as for `ring_clip_loss`."""
    image, text = l2_normalize(image), l2_normalize(text)

    def against(block: Block) -> Array:
        logits = _logits(image, block[0], logit_scale) + logit_bias
        return jnp.sum(jax.nn.softplus(_hidden(logits, block[1])), axis=1)

    total = _around_the_ring(against, jnp.add, (text, valid), axis_name)
    return total - _own_logits(image, text, logit_scale) - logit_bias


def retrieval_hits(image: Float[Array, "b d"], text: Float[Array, "b d"]) -> Bool[Array, " b"]:
    """Whether each image is nearer to its own text than to any other one."""
    image, text = l2_normalize(image), l2_normalize(text)
    return _others_best(image, text) < jnp.sum(image * text, axis=-1)


def ring_retrieval_hits(
    image: Float[Array, "b d"], text: Float[Array, "b d"], *, axis_name: AxisName
) -> Bool[Array, " b"]:
    """`retrieval_hits` inside `shard_map`, against the texts of the whole axis."""
    image, text = l2_normalize(image), l2_normalize(text)

    def best(block: Block) -> Array:
        return jnp.max(_cosines(image, block[0]), axis=1)

    start = _others_best(image, text)
    others = _around_the_ring(best, jnp.maximum, (text, None), axis_name, start=start)
    return others < jnp.sum(image * text, axis=-1)


def encode_in_chunks(encode: Callable[[Any], Any], batch: Any, chunks: int) -> Any:
    """encode(batch), computed `chunks` parts after each other in both directions.

    Only embeddings are kept; the backward pass runs each part again and sums the gradients of
    whatever parameters `encode` closes over. Differentiating a loss of the result is GradCache.
    Part i takes every `chunks`-th row from row i on, so that a batch whose rows are split over
    devices stays where it is.

    Args:
      encode: tree of [b, ...] arrays -> tree of [b, ...] arrays, each row from its own row alone.
      batch: tree of [B, ...] arrays.

    Raises:
      UserError: if `chunks` does not divide B.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    if chunks < 1 or size % chunks:
        raise UserError(f"a batch of {size} does not divide into {chunks} chunks of equal size")
    split = lambda x: x.reshape(size // chunks, chunks, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
    join = lambda x: x.swapaxes(0, 1).reshape(size, *x.shape[2:])  # noqa: E731
    return jax.tree.map(join, jax.lax.map(jax.checkpoint(encode), jax.tree.map(split, batch)))


def _inverse_temperature(logit_scale: Array) -> Array:
    # `where`, not `minimum`: at the limit itself, where clamping puts it, the gradient is whole.
    return jnp.exp(jnp.where(logit_scale > MAX_LOGIT_SCALE, MAX_LOGIT_SCALE, logit_scale))


def _logits(left: Array, right: Array, logit_scale: Array) -> Array:
    return _inverse_temperature(logit_scale) * _cosines(left, right)


def _cosines(left: Array, right: Array) -> Array:
    # Multiplied by up to 100 to become logits: the fast products of accelerators (8 or 10 bits)
    # would round one by about 0.2, and the towers cost a thousand times more than this product.
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)


def _hidden(logits: Array, valid: Valid) -> Array:
    """The logits, those with embeddings that are padding at minus infinity."""
    return logits if valid is None else jnp.where(valid[None, :], logits, -jnp.inf)


def _others_best(image: Array, text: Array) -> Array:
    cosines = _cosines(image, text)
    own = jnp.eye(len(cosines), dtype=bool)
    return jnp.max(jnp.where(own, -jnp.inf, cosines), axis=1)


def _own_logits(left: Array, right: Array, logit_scale: Array) -> Array:
    return _inverse_temperature(logit_scale) * jnp.sum(left * right, axis=-1)


def _around_the_ring(
    contribution: Callable[[Block], Array],
    combine: Callable[[Array, Array], Array],
    block: Block,
    axis_name: AxisName,
    start: Array | None = None,
) -> Array:
    """Combines contribution(block) over the blocks of all devices.

    `start` stands in for the contribution of a device's own block. The backward pass keeps the
    blocks and recomputes their logits.
    """
    contribution = jax.checkpoint(contribution)
    devices = jax.lax.axis_size(axis_name)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]

    def step(carry: tuple[Array, Block], _: None) -> tuple[tuple[Array, Block], None]:
        total, block = carry
        block = jax.lax.ppermute(block, axis_name, to_next)
        return (combine(total, contribution(block)), block), None

    first = contribution(block) if start is None else start
    return jax.lax.scan(step, (first, block), None, length=devices - 1)[0][0]
