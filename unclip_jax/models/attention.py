"""Scaled dot-product attention, softmax(q k' / sqrt(H)) v, in one function for every network.

Two implementations compute it: plain XLA, which runs everywhere, and cuDNN's fused flash attention
on NVIDIA GPUs, which never writes the [T, S] weights to memory. "auto" takes cuDNN where it can
run: 16-bit inputs and head sizes that are multiples of 8 up to 128. cuDNN cannot differentiate
masked attention of odd lengths (the prior's 77 + 4 tokens), so those are padded by one here.
The softmax is computed in float32 whatever the inputs are (float64 for float64).

Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from unclip_jax.errors import UserError

IMPLEMENTATIONS = ("auto", "xla", "cudnn")
CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
CUDNN_MAX_HEAD_DIM = 128

# Products of 16-bit numbers are summed in float32, forwards and backwards. Without the preset the
# backward pass would multiply float32 cotangents with 16-bit keys, at float32 speed.
_PRECISION = {
    jnp.dtype(jnp.bfloat16): jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
    jnp.dtype(jnp.float16): jax.lax.DotAlgorithmPreset.F16_F16_F32,
}


def dot_product_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s n h"],
    v: Float[Array, "b s n h"],
    *,
    mask: Bool[Array, "#b #n #t s"] | None = None,
    implementation: str = "auto",
) -> Float[Array, "b t n h"]:
    """Attends from T queries to S keys in N heads of size H.

    Args:
      q, k, v: queries, keys and values of one dtype; the result has it too.
      mask: True where a query may look at a key; None lets it look everywhere. A query that may
        look nowhere gets the mean of all values, never NaN.
      implementation: "auto", "xla" or "cudnn".

    Raises:
      UserError: for an unknown implementation, or "cudnn" where cuDNN cannot do it.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"unknown attention implementation {implementation!r}; use one of {IMPLEMENTATIONS}"
        )
    supported = cudnn_supports(q.dtype, q.shape[-1])
    if implementation == "cudnn" and not supported:
        raise UserError(
            f"cuDNN attention cannot take dtype {q.dtype} with head size {q.shape[-1]}: use a "
            f"16-bit dtype and a multiple of 8 up to {CUDNN_MAX_HEAD_DIM}, or 'auto'"
        )
    if implementation == "cudnn" or (implementation == "auto" and supported and _on_cuda()):
        return _cudnn_attention(q, k, v, mask)
    return _xla_attention(q, k, v, mask)


def cudnn_supports(dtype: DTypeLike, head_dim: int) -> bool:
    """Whether cuDNN's fused attention takes this dtype and head size, given a GPU that has it."""
    return jnp.dtype(dtype) in CUDNN_DTYPES and head_dim % 8 == 0 and head_dim <= CUDNN_MAX_HEAD_DIM


def _on_cuda() -> bool:
    return jax.default_backend() == "gpu" and "NVIDIA" in jax.devices()[0].device_kind


def _xla_attention(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    logits = jnp.einsum(
        "btnh,bsnh->bnts",
        q,
        k,
        precision=_PRECISION.get(q.dtype),
        preferred_element_type=jnp.promote_types(q.dtype, jnp.float32),
    )
    logits = logits * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def _cudnn_attention(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    queries = q.shape[1]
    if mask is not None:
        q, k, v, mask = pad_to_even(q, k, v, mask)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    return out[:, :queries]


def pad_to_even(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s n h"],
    v: Float[Array, "b s n h"],
    mask: Bool[Array, "#b #n #t s"],
) -> tuple[Array, Array, Array, Array]:
    """Pads T and S to even lengths: one key that nobody may see, one query that copies the last.

    The mask comes back with its query axis written out, as cuDNN wants it. The first T rows of
    attention over the results equal attention over the arguments.
    """
    queries, keys = q.shape[1], k.shape[1]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], queries, keys))
    pad_q, pad_k = queries % 2, keys % 2
    q = jnp.pad(q, ((0, 0), (0, pad_q), (0, 0), (0, 0)), mode="edge")
    k, v = (jnp.pad(x, ((0, 0), (0, pad_k), (0, 0), (0, 0))) for x in (k, v))
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, pad_q), (0, 0)), mode="edge")
    return q, k, v, jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, pad_k)))
