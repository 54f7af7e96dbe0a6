"""The device mesh: axes `data`, `fsdp` and `tensor`, all automatically partitioned.

The batch is split over `data` and `fsdp`, parameters over `fsdp` and `tensor` (see sharding.py).
Between slices, which only the slow data-centre network joins, nothing but gradients should travel:
`data` is the one axis that crosses them, as its outer part; `fsdp` and `tensor` stay inside.

Axes are spelled out as Auto: newer versions of JAX default to Explicit, where sharding is part of
types.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from unclip_jax.config.schema import Mesh as MeshConfig
from unclip_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
AnyMesh = Mesh | AbstractMesh


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices; at most one axis is -1 and takes what the others leave.

    Raises:
      UserError: if the axes do not divide the devices, or `data` the slices.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = mesh_shape(config, len(devices))
    slices = _slices(config, devices)
    if data % len(slices):
        raise UserError(
            f"config.mesh: data={data} does not divide over the {len(slices)} slices, and fsdp and "
            f"tensor stay inside one: make fsdp={fsdp} x tensor={tensor} smaller"
        )
    shape = (data // len(slices), fsdp, tensor)
    parts = [mesh_utils.create_device_mesh(shape, devices=part) for part in slices]
    return Mesh(np.concatenate(parts), AXES, axis_types=_auto())


def abstract_mesh(config: MeshConfig, count: int) -> AbstractMesh:
    """The mesh of `count` devices that need not exist, for looking at shardings."""
    return AbstractMesh(mesh_shape(config, count), AXES, axis_types=_auto())


def mesh_shape(config: MeshConfig, count: int) -> tuple[int, int, int]:
    """(data, fsdp, tensor) of a mesh of `count` devices."""
    sizes = (config.data, config.fsdp, config.tensor)
    asked = dict(zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise UserError(f"config.mesh: only one axis may be -1, got {asked}")
    fixed = math.prod(s for s in sizes if s != -1)
    if (
        any(s < -1 or s == 0 for s in sizes)
        or count % fixed
        or (-1 not in sizes and fixed != count)
    ):
        raise UserError(f"config.mesh: {asked} does not divide the {count} devices")
    data, fsdp, tensor = (count // fixed if s == -1 else s for s in sizes)
    return data, fsdp, tensor


def check_batch_size(batch_size: int, mesh: AnyMesh, accumulate: int = 1) -> None:
    """Raises `UserError` unless every micro-batch splits evenly over the mesh's batch axes."""
    parts = math.prod(mesh.shape[a] for a in BATCH_AXES)
    if batch_size % (parts * accumulate):
        micro = f" in config.train.accumulate={accumulate} parts" if accumulate > 1 else ""
        raise UserError(
            f"config.train.batch_size={batch_size}{micro} does not divide over the {parts} devices "
            f"of config.mesh data x fsdp: make it a multiple of {parts * accumulate}"
        )


def _slices(config: MeshConfig, devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each slice: those that TPUs report, or equal runs in order of processes."""
    if config.slices == -1:
        # Devices of a single slice that is only described, not there, have no number.
        numbers = [getattr(d, "slice_index", 0) if d.platform == "tpu" else 0 for d in devices]
        groups = [
            [d for d, n in zip(devices, numbers, strict=True) if n == s] for s in set(numbers)
        ]
    else:
        if config.slices < 1 or len(devices) % config.slices:
            raise UserError(
                f"config.mesh.slices={config.slices} does not divide the {len(devices)} devices"
            )
        size = len(devices) // config.slices
        ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
        groups = [ordered[i : i + size] for i in range(0, len(devices), size)]
    if len({len(group) for group in groups}) > 1:
        sizes = [len(group) for group in groups]
        raise UserError(f"the slices have different numbers of devices: {sizes}")
    return groups


def _auto() -> tuple[AxisType, ...]:
    return (AxisType.Auto,) * len(AXES)
