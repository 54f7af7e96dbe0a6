"""Meshes and shardings."""

from unclip_jax.parallel.mesh import BATCH_AXES, check_batch_size, make_mesh
from unclip_jax.parallel.sharding import batch_sharding, replicated, shardings

__all__ = [
    "BATCH_AXES",
    "batch_sharding",
    "check_batch_size",
    "make_mesh",
    "replicated",
    "shardings",
]
