"""The scale at which CLIP embeddings are diffused and fed to networks: a named choice.

Diffusion schedules are made for data of about unit variance, which CLIP embeddings are not.

    raw       z                                  as CLIP gives it
    unit      z / |z|
    paper     0.5375 sqrt(d) z / |z|             = 17.2 at d = 1024: the variance of ImageNet pixels
    sqrt_dim  sqrt(d) z / |z|                    per-dimension variance 1 about the origin
    whiten    (z - mean) / std                   statistics of the training set (karlo)

`paper` is arXiv 2204.06125, appendix C, carried to other widths by its reason: 17.2 / sqrt(1024)
is the standard deviation per dimension. CLIP embeddings lie in a narrow cone, far from the origin;
`whiten` takes that common offset out.
"""

import dataclasses
import math
from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from unclip_jax.config.schema import EmbeddingScaleName
from unclip_jax.errors import UserError, did_you_mean

PAPER_STD = 17.2 / math.sqrt(1024)
DIRECTION_ONLY = ("unit", "paper", "sqrt_dim")  # scales that a vector's length does not touch
STD_FLOOR = 1e-6  # a dimension that never varies is not blown up


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation, [D] each, of raw CLIP image embeddings."""

    mean: Array
    std: Array


def needs_statistics(name: str) -> bool:
    """Whether `encode` and `decode` use the statistics of the data."""
    return name == "whiten"


def encode(
    name: str, z: Float[Array, "b d"], statistics: Statistics | None = None
) -> Float[Array, "b d"]:
    """Raw CLIP embeddings on the named scale, float32."""
    z = z.astype(jnp.float32)
    if name == "raw":
        return z
    if name == "whiten":
        s = _given(statistics)
        return (z - s.mean[None]) / jnp.maximum(s.std, STD_FLOOR)[None]
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True) * _length(name, z.shape[-1])


def decode(
    name: str, x: Float[Array, "b d"], statistics: Statistics | None = None
) -> Float[Array, "b d"]:
    """Back to CLIP's space. The length is lost on normalised scales; there |z| comes out near 1."""
    if name == "raw":
        return x
    if name == "whiten":
        s = _given(statistics)
        return x * jnp.maximum(s.std, STD_FLOOR)[None] + s.mean[None]
    return x / _length(name, x.shape[-1])


def _length(name: str, dim: int) -> float:
    lengths = {"unit": 1.0, "paper": PAPER_STD * math.sqrt(dim), "sqrt_dim": math.sqrt(dim)}
    if name not in lengths:
        known = get_args(EmbeddingScaleName)
        raise UserError(f"no embedding scale {name!r}{did_you_mean(name, known)}")
    return lengths[name]


def _given(statistics: Statistics | None) -> Statistics:
    if statistics is None:
        raise UserError("embedding_scale 'whiten' needs the statistics of the embeddings")
    return statistics
