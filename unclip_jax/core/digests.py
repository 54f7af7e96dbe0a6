"""A checksum of an array that does not depend on how it is sharded, computed where the array is.

    digest(x) = ( Σ_i mix(bits(x_i) ⊕ mix(i)),  Σ_i mix(bits(x_i) + mix(i ⊕ c)) )   mod 2³²

with the 32-bit finaliser of MurmurHash3 as `mix`, a bijection: a change of any one element changes
both sums for certain, other changes escape with a chance of about 2⁻⁶⁴. Sums mod 2³² are exact in
any order, so every mesh and every number of processes gives the same digest, and a sharded array
is read once, on its own devices.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt32

from unclip_jax.core import trees
from unclip_jax.core.memories import fetched


def digests(tree: Any) -> dict[str, str]:
    """{path of a leaf: 16 hexadecimal digits} of a tree of arrays; all processes must take part."""
    pending = {}
    for path, leaf in trees.flatten(tree).items():
        array = fetched(leaf)
        pending[path] = _compiled(_mesh_of(leaf))(array)
        if array is not leaf:  # no more than one copy at a time
            jax.block_until_ready(pending[path])
    return {path: _hex(np.asarray(pair)) for path, pair in pending.items()}


def differing(expected: Mapping[str, str], tree: Any) -> list[str]:
    """The paths of the tree's leaves whose digests are not the expected ones, or not expected."""
    return [path for path, value in digests(tree).items() if expected.get(path) != value]


def _mesh_of(leaf: Any) -> Mesh | None:
    sharding = getattr(leaf, "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


@functools.lru_cache(maxsize=8)
def _compiled(mesh: Mesh | None) -> Any:
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(_digest, out_shardings=everywhere)


def _digest(x: Array) -> UInt32[Array, "2"]:
    bits = _bits(x)
    index = _index(bits.shape)
    return jnp.stack(
        [
            jnp.sum(_mix(bits ^ _mix(index)), dtype=jnp.uint32),
            jnp.sum(_mix(bits + _mix(index ^ jnp.uint32(0x9E3779B9))), dtype=jnp.uint32),
        ]
    )


def _bits(x: Array) -> UInt32[Array, "..."]:
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _index(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The row-major number of each element, mod 2³²."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        step = jnp.uint32(stride % 2**32)
        index += step * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        stride *= shape[axis]
    return index


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _hex(pair: np.ndarray) -> str:
    return f"{int(pair[0]):08x}{int(pair[1]):08x}"
