"""Keeps a batch where it is while layers with split weights work on it.

Left alone, the compiler may bring activations to the parts of a weight instead of the weight to
the activations, and then every device computes on the whole batch. `batch_stays_split` says of the
result of every layer that has weights that its rows stay split over the given mesh axes; the
compiler then gathers the kernel, in the forward pass and again in the backward pass.

Networks know nothing of meshes, so this is said from outside, while a network is traced.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

_LAYERS = (nn.Dense, nn.DenseGeneral, nn.Conv, nn.Embed, nn.LayerNorm)


@contextlib.contextmanager
def batch_stays_split(axes: tuple[str, ...]) -> Iterator[None]:
    """Inside, rows of each layer's result lie over `axes` of the mesh in use."""

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        result = call(*args, **kwargs)
        if isinstance(context.module, _LAYERS) and context.method_name == "__call__":
            return _split_rows(result, axes)
        return result

    with nn.intercept_methods(intercept):
        yield


def _split_rows(x: Array, axes: tuple[str, ...]) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    # Manual axes are those of a shard_map, which keeps rows where they are itself.
    axes = tuple(a for a in axes if a in mesh.axis_names and a not in mesh.manual_axes)
    if not axes or x.shape[0] % math.prod(mesh.shape[a] for a in axes):
        return x  # such as the one row with which parameters are initialised
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))
