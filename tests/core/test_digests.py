"""Digests: any one changed bit shows, and sharding does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unclip_jax.core.digests import differing, digests

MASK = 2**32 - 1


def mix(x):
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)


def by_hand(array):
    """The definition, in Python's integers."""
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    bits = [int(b) for b in np.ascontiguousarray(array).view(unsigned).reshape(-1)]
    one = sum(mix(b ^ mix(i)) for i, b in enumerate(bits)) & MASK
    two = sum(mix((b + mix(i ^ 0x9E3779B9)) & MASK) for i, b in enumerate(bits)) & MASK
    return f"{one:08x}{two:08x}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_the_definition_for_every_dtype(dtype):
    array = np.asarray(jnp.asarray(np.arange(24).reshape(2, 3, 4) * 1.7 - 5).astype(dtype))
    assert digests({"a": jnp.asarray(array)}) == {"a": by_hand(array)}


def test_a_scalar():
    assert digests({"step": jnp.int32(7)}) == {"step": by_hand(np.array(7, np.int32))}


@pytest.mark.parametrize("spec", [("x",), (None, "x"), ()])
def test_no_sharding_changes_it(spec):
    array = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()), ("x",))
    sharded = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    assert digests({"a": sharded}) == {"a": by_hand(array)}


def test_every_single_bit_flip_is_seen():
    array = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    before = digests({"a": jnp.asarray(array)})
    for element in range(array.size):
        for bit in range(32):
            flipped = array.copy()
            flipped.reshape(-1).view(np.uint32)[element] ^= np.uint32(1 << bit)
            assert differing(before, {"a": jnp.asarray(flipped)}) == ["a"]


def test_exchanged_elements_and_signed_zero_are_seen():
    base = np.array([1.0, 2.0, 0.0], np.float32)
    seen = {
        digests({"a": jnp.asarray(x)})["a"] for x in (base, base[[1, 0, 2]], -base, base * -0.0)
    }
    assert len(seen) == 4
