"""Random keys by name, step and example: derived, never carried, never saved.

key(name, step, row) = fold_in(fold_in(fold_in(root, crc32(name)), step), row)

Because a key is a pure function of what it is for, a resumed run draws what the uninterrupted one
would have drawn, and an example's draw depends on no other example, batch size, host or mesh
(`jax_threefry_partitionable` is on). The idea is Kauldron's named streams, taken down to the row.
"""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key


def fold_in_name(key: Key[Array, "*batch"], name: str) -> Key[Array, "*batch"]:
    """The key, or each key of an array, of the stream called `name`.

    The name enters through CRC-32, which is the same in every process and Python version.
    """
    data = zlib.crc32(name.encode())
    fold = lambda k: jax.random.fold_in(k, data)  # noqa: E731
    for _ in range(key.ndim):
        fold = jax.vmap(fold)
    return fold(key)


def example_keys(
    root: Key[Array, ""], name: str, step: int | Int[Array, ""], rows: int | Int[Array, " b"]
) -> Key[Array, " b"]:
    """One key per example of a global batch.

    Args:
      root: the run's key, `jax.random.key(seed)`.
      name: what the keys are for, such as "train" or "preview".
      step: the training step.
      rows: the examples' row numbers in the global batch, or their count for 0..rows-1.
    """
    if isinstance(rows, int):
        rows = jnp.arange(rows, dtype=jnp.int32)
    key = jax.random.fold_in(fold_in_name(root, name), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def normal(keys: Key[Array, " b"], shape: tuple[int, ...]) -> Array:
    """Standard normal float32 noise [B, *shape]; row i comes from keys[i] alone."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys)
