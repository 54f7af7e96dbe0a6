"""The hash of weights: equal for equal arrays, different for any change."""

import hashlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from unclip_jax.core.hashing import weights_hash

WEIGHTS = {
    "b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "a": np.asarray(2.0, np.float32),
}


def test_follows_the_written_recipe():
    digest = hashlib.sha256()
    digest.update(b"a\0float32\0()\0" + np.float32(2).tobytes())
    digest.update(b"b/kernel\0float32\0(2, 3)\0" + np.arange(6, dtype="<f4").tobytes())
    assert weights_hash(WEIGHTS) == digest.hexdigest()


def test_does_not_depend_on_how_the_arrays_lie_in_memory():
    kernel = WEIGHTS["b"]["kernel"]
    other = {"a": jnp.float32(2), "b": {"kernel": np.asfortranarray(kernel)}}
    assert weights_hash(other) == weights_hash(WEIGHTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"a": np.asarray(2.0, np.float32), "c": WEIGHTS["b"]},
        {"a": np.asarray([2.0], np.float32), "b": WEIGHTS["b"]},
        {"a": np.asarray(2.0, ml_dtypes.bfloat16), "b": WEIGHTS["b"]},
        {"a": np.asarray(2.0, np.float32), "b": {"kernel": WEIGHTS["b"]["kernel"].reshape(3, 2)}},
        {"a": np.nextafter(np.float32(2), np.float32(3)), "b": WEIGHTS["b"]},
    ],
    ids=["path", "shape of a scalar", "dtype", "shape", "last bit"],
)
def test_sees_every_change(changed):
    assert weights_hash(changed) != weights_hash(WEIGHTS)
