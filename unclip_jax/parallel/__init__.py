"""Meshes, shardings, and several processes as one."""

from unclip_jax.parallel.agreement import Agreement
from unclip_jax.parallel.cluster import Cluster
from unclip_jax.parallel.mesh import BATCH_AXES, abstract_mesh, check_batch_size, make_mesh
from unclip_jax.parallel.sharding import (
    ShardingRules,
    batch_sharding,
    check_split,
    replicated,
    whole_share,
)

__all__ = [
    "BATCH_AXES",
    "Agreement",
    "Cluster",
    "ShardingRules",
    "abstract_mesh",
    "batch_sharding",
    "check_batch_size",
    "check_split",
    "make_mesh",
    "replicated",
    "whole_share",
]
