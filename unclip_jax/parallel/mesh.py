"""The device mesh: axes `data`, `fsdp` and `tensor`, all automatically partitioned.

The batch is split over `data` and `fsdp`, parameters over `fsdp` (and `tensor` by name). Axes are
spelled out as Auto: newer versions of JAX default to Explicit, where sharding is part of types.
"""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices; at most one axis is -1 and takes what the others leave."""
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    asked = dict(zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise UserError(f"config.mesh: only one axis may be -1, got {asked}")
    fixed = math.prod(s for s in sizes if s != -1)
    if fixed <= 0 or len(devices) % fixed or (-1 not in sizes and fixed != len(devices)):
        raise UserError(f"config.mesh: {asked} does not divide the {len(devices)} devices")
    shape = tuple(len(devices) // fixed if s == -1 else s for s in sizes)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` unless the batch splits evenly over the mesh's batch axes."""
    parts = math.prod(mesh.shape[a] for a in BATCH_AXES)
    if batch_size % parts:
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide over the {parts} devices of "
            f"config.mesh data x fsdp"
        )
