"""One name for a set of weights, equal wherever they are stored.

SHA-256 over the leaves in the order of their paths, of each: path, dtype, shape, bytes (row major).
Trees with the same arrays have the same hash, whatever wrote, sharded or split them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from unclip_jax.core import trees


def weights_hash(params: Mapping[str, Any]) -> str:
    """The hash of a nested dict of arrays (numpy or jax), 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in sorted(trees.flatten(params).items()):
        array = np.asarray(leaf, order="C")
        digest.update(f"{path}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
