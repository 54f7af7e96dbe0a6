"""Adaptive gradient clipping: no unit's gradient is longer than a share of its own weights.

    g <- g min(1, c max(|w|, eps) / |g|)      for the inputs w, g of each output unit

A unit is one output of a kernel, in one layer; a vector is one unit per layer.

Source: Brock et al. 2021 (arXiv 2102.06171), equation 3, eps 1e-3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unclip_jax.core import trees
from unclip_jax.stages import logical_axes
from unclip_jax.training.matrices import input_axes

EPS = 1e-3


def adaptive_clip(limit: float) -> optax.GradientTransformation:
    """Clips each unit's gradient to `limit` times the norm of its weights."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        flat = trees.flatten(params)
        return trees.map_with_path(
            lambda path, g: _clip(path, g, flat[path], limit), updates
        ), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _clip(path: str, gradient: jax.Array, weight: jax.Array, limit: float) -> jax.Array:
    axes = input_axes(path, gradient.ndim)
    if not axes:
        names = logical_axes(path, gradient.ndim)
        axes = tuple(i for i, name in enumerate(names) if name != "layers")

    def norm(x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(x * x, axis=axes, keepdims=True))

    longest = limit * jnp.maximum(norm(weight), EPS)
    return gradient * jnp.minimum(1.0, longest / jnp.maximum(norm(gradient), 1e-12))
