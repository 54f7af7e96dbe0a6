"""Attention against float64 numpy, its mask, its padding for cuDNN, and the choice of backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.models import attention
from unclip_jax.models.attention import cudnn_supports, dot_product_attention, pad_to_even


def numpy_attention(q, k, v, mask=None):
    """Row by row, in float64, leaving masked keys out of the sum instead of hiding them."""
    out = np.zeros(q.shape, np.float64)
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for b, t, n in np.ndindex(q.shape[:3]):
        seen = np.full(k.shape[1], True)
        if mask is not None:
            seen = np.broadcast_to(mask, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))[b, n, t]
        weights = np.exp(k[b, seen, n] @ q[b, t, n] / np.sqrt(q.shape[-1]))
        out[b, t, n] = weights @ v[b, seen, n] / weights.sum()
    return out


def inputs(dtype=jnp.float32, queries=5, keys=7):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 3, 8)).astype(np.float32) for n in (queries, keys, keys))
    mask = rng.random((2, 1, queries, keys)) < 0.5
    mask[..., 0] = True
    return jnp.asarray(q, dtype), jnp.asarray(k, dtype), jnp.asarray(v, dtype), jnp.asarray(mask)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_float64_numpy(masked, claim):
    q, k, v, mask = inputs()
    mask = mask if masked else None
    got = dot_product_attention(q, k, v, mask=mask)
    claim.near("attention", "float64 numpy", got, numpy_attention(q, k, v, mask), bound=2e-6)


def test_masked_keys_and_values_change_nothing():
    q, k, v, mask = inputs()
    mask = mask.at[..., 3].set(False)
    got = dot_product_attention(q, k, v, mask=mask)
    moved = dot_product_attention(q, k.at[:, 3].add(9.0), v.at[:, 3].add(9.0), mask=mask)
    np.testing.assert_array_equal(got, moved)


def test_a_query_that_may_look_nowhere_gets_the_mean_and_finite_gradients():
    q, k, v, mask = inputs()
    mask = mask.at[:, :, 2].set(False)
    got = dot_product_attention(q, k, v, mask=mask)
    np.testing.assert_allclose(got[:, 2], jnp.mean(v, axis=1), rtol=1e-5, atol=1e-6)
    grads = jax.jit(jax.grad(lambda q: dot_product_attention(q, k, v, mask=mask).sum()))(q)
    assert bool(jnp.isfinite(grads).all())


def test_softmax_is_computed_in_float32_for_16_bit_inputs():
    """Logits near 300 differ by 0.5 between keys: bfloat16 logits (steps of 2) could not tell."""
    q = jnp.full((1, 1, 1, 8), 300 * 8**-0.5, jnp.bfloat16)
    k = jnp.ones((1, 2, 1, 8), jnp.bfloat16).at[0, 1, 0, 0].set(1 + 2**-6)
    v = jnp.asarray([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1, 1) * jnp.ones((1, 1, 1, 8))
    got = dot_product_attention(q, k, v.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        got.astype(jnp.float32), numpy_attention(q, k, v), rtol=2**-7, atol=0
    )


@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (4, 6)])
def test_padding_to_even_lengths_changes_no_real_row_and_no_gradient(queries, keys, claim):
    q, k, v, mask = inputs(queries=queries, keys=keys)

    def plain(q, k, v):
        return jnp.sin(dot_product_attention(q, k, v, mask=mask)).sum()

    def padded(q, k, v):
        *padded_qkv, padded_mask = pad_to_even(q, k, v, mask)
        out = dot_product_attention(*padded_qkv, mask=padded_mask)
        return jnp.sin(out[:, :queries]).sum()

    assert all(x.shape[1] % 2 == 0 for x in pad_to_even(q, k, v, mask)[:3])
    wanted, got = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(q, k, v) for f in (plain, padded)
    )
    what = "attention padded to even lengths for cuDNN, value and gradients"
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        claim.near(what, "the same without padding", a, b, bound=5e-6)


def test_cudnn_is_given_even_lengths_and_only_what_it_supports(monkeypatch):
    seen = []

    def fused(q, k, v, *, mask, implementation):
        seen.append((implementation, q.shape[1] % 2, k.shape[1] % 2, mask.shape[2:]))
        return attention._xla_attention(q, k, v, mask)

    q, k, v, mask = inputs(jnp.bfloat16)
    wanted = dot_product_attention(q, k, v, mask=mask, implementation="xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", fused)
    monkeypatch.setattr(attention, "_on_cuda", lambda: True)
    got = dot_product_attention(q, k, v, mask=mask)
    assert seen == [("cudnn", 0, 0, (6, 8))]
    np.testing.assert_array_equal(got.astype(jnp.float32), wanted.astype(jnp.float32))
    dot_product_attention(*inputs()[:3])
    assert len(seen) == 1, "float32 goes to XLA"


def test_what_cudnn_supports():
    assert cudnn_supports(jnp.bfloat16, 64)
    assert cudnn_supports(jnp.float16, 128)
    assert not cudnn_supports(jnp.float32, 64)
    assert not cudnn_supports(jnp.bfloat16, 12)
    assert not cudnn_supports(jnp.bfloat16, 256)


def test_impossible_requests_are_refused():
    q, k, v, _ = inputs()
    with pytest.raises(UserError, match="cuDNN attention cannot take dtype float32"):
        dot_product_attention(q, k, v, implementation="cudnn")
    with pytest.raises(UserError, match="unknown attention implementation 'flash'"):
        dot_product_attention(q, k, v, implementation="flash")
