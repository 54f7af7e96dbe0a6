"""Weights as 8-bit integers, one scale per output channel: a quarter of the size.

    q = round(w / s),   s = max |w| / 127 over the inputs of a channel,   w ~ q s

Only kernels and tables, which are nearly all of a network, are quantised; norms, biases and other
vectors stay float32. They are stored as `path` (int8) and `path#scale` (float32), and read as
float32: this saves space on disk and on the way, not memory or time.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

SUFFIX = "#scale"
LEVELS = 127


def quantize(flat: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by path, those worth it as int8 with their scales beside them."""
    found: dict[str, np.ndarray] = {}
    for path, value in flat.items():
        array = np.asarray(value, np.float32)
        axes = _inputs(path, array)
        if axes is None:
            found[path] = array
            continue
        scale = np.abs(array).max(axis=axes, keepdims=True) / LEVELS
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        found[path] = np.round(array / scale).astype(np.int8)
        found[path + SUFFIX] = scale
    return found


def dequantize(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `quantize`, up to rounding: float32."""
    return {
        path: value.astype(np.float32) * stored[path + SUFFIX] if path + SUFFIX in stored else value
        for path, value in stored.items()
        if not path.endswith(SUFFIX)
    }


def _inputs(path: str, array: np.ndarray) -> tuple[int, ...] | None:
    """The axes that a channel's scale is shared over; None for what is left as it is.

    A table of tokens has one scale per token; a kernel one per output, of q, k and v each; a stack
    of layers one per layer and output.
    """
    name = path.rpartition("/")[2]
    if name == "embedding" and array.ndim == 2:
        return (1,)
    if name != "kernel":
        return None
    outputs = 2 if path.endswith("qkv/kernel") else 1
    return tuple(range(1 if "/blocks/" in f"/{path}" else 0, array.ndim - outputs))
