"""Which arrays are matrices, and along which axes: what Muon orthogonalises and AGC measures.

Layers stacked for a scan, and q, k and v in one kernel, are several matrices each; a convolution is
one, from all taps and input channels to its output channels.
"""

from typing import Any

import jax
from optax import contrib

from unclip_jax.core import trees
from unclip_jax.stages import logical_axes


def input_axes(path: str, ndim: int) -> tuple[int, ...]:
    """The axes over which a kernel sums its inputs; () for what is no kernel.

    The last axis is its outputs, and what is left separates matrices.
    """
    if path.rpartition("/")[2] not in ("kernel", "embedding"):
        return ()
    first = 1 if logical_axes(path, ndim)[0] == "layers" else 0
    last = ndim - 2 if "qkv/" in path else ndim - 1
    return tuple(range(first, last))


def muon_dimensions(params: Any) -> Any:
    """For each array `MuonDimensionNumbers`, or None where Adam is better.

    Muon is for the matrices inside blocks, those with two named dimensions. First and last layers,
    embeddings and vectors are left to Adam (Jordan et al. 2024).
    """

    def dimensions(path: str, leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        names = [n for n in logical_axes(path, leaf.ndim) if n not in (None, "layers")]
        inputs = input_axes(path, leaf.ndim)
        if len(names) < 2 or not inputs:
            return None
        return contrib.MuonDimensionNumbers(reduction_axis=inputs, output_axis=leaf.ndim - 1)

    return trees.map_with_path(dimensions, params)
