"""Meshes, shardings, and several processes as one."""

from unclip_jax.parallel.agreement import Agreement
from unclip_jax.parallel.cluster import Cluster
from unclip_jax.parallel.mesh import BATCH_AXES, check_batch_size, make_mesh
from unclip_jax.parallel.sharding import batch_sharding, replicated, shardings

__all__ = [
    "BATCH_AXES",
    "Agreement",
    "Cluster",
    "batch_sharding",
    "check_batch_size",
    "make_mesh",
    "replicated",
    "shardings",
]
