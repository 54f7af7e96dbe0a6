"""Print how a run's parameters and state would lie on a mesh: no devices, no memory, no data.

Fails as training would where the mesh does not divide the network, or leaves too much of it whole.
Priors and decoders take the sizes of their CLIP from config.clip.path, or from --clip-config.

Example:
  unclip inspect shardings --config prior:paper --clip-config clip:vit_h16 --devices 16 \\
    --config.mesh.fsdp=8 --config.mesh.tensor=2
"""

import argparse
import dataclasses
import math

import jax
import optax

from unclip_jax import stages
from unclip_jax.cli.clip_arguments import add_clip_argument, clip_model
from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.config import RunConfig
from unclip_jax.config.schema import ClipModel
from unclip_jax.core import trees
from unclip_jax.core.memories import HOST
from unclip_jax.errors import UserError
from unclip_jax.parallel import abstract_mesh, check_batch_size, whole_share
from unclip_jax.training import ema
from unclip_jax.training.layout import state_shardings
from unclip_jax.training.optimizer import make_optimizer
from unclip_jax.training.state import TrainState, init_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config_arguments(parser)
    parser.add_argument(
        "--devices", type=int, metavar="N", help="of the mesh; by default this machine's"
    )
    add_clip_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the table; exit code 0."""
    config = config_from(args)
    devices = jax.device_count() if args.devices is None else args.devices
    if devices < 1:
        raise UserError(f"--devices {devices}: must be positive")
    print(report(config, clip_model(config, args.clip_config), devices), end="")
    return 0


def report(config: RunConfig, clip: ClipModel | None, devices: int) -> str:
    """The mesh, the bytes that each part of the state needs, and one line per parameter."""
    mesh = abstract_mesh(config.mesh, devices)
    check_batch_size(config.train.batch_size, mesh, config.train.accumulate)
    stage = stages.build(config, clip)
    tx = make_optimizer(config.optim, optax.constant_schedule(config.optim.learning_rate))
    averages = ema.further_averages(config.ema, start=0)
    state = jax.eval_shape(lambda: init_state(stage, tx, jax.random.key(0), averages=averages))
    layout = state_shardings(state, config.mesh, mesh)
    axes = " ".join(f"{name}={size}" for name, size in mesh.shape.items())
    lines = [
        f"mesh {axes}, batch {config.train.batch_size}",
        f"{trees.count(state.params):,} parameters",
        *_totals(state, layout),
        "",
    ]
    placed = trees.flatten(layout.params)
    for path, leaf in trees.flatten(state.params).items():
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        split = " ".join(str(axis or "-") for axis in placed[path].spec) or "whole"
        held = math.prod(placed[path].shard_shape(leaf.shape)) * leaf.dtype.itemsize
        lines.append(f"{path}  {shape}  {split}  {held:,} B")
    return "\n".join(lines) + "\n"


def _totals(state: TrainState, layout: TrainState) -> list[str]:
    lines = []
    for field in dataclasses.fields(TrainState):
        tree, shardings = getattr(state, field.name), getattr(layout, field.name)
        placed, flat = trees.flatten(shardings), trees.flatten(tree)
        total = sum(x.size * x.dtype.itemsize for x in flat.values())
        held = {
            path: math.prod(placed[path].shard_shape(x.shape)) * x.dtype.itemsize
            for path, x in flat.items()
        }
        if total > 4:
            share = whole_share(tree, shardings)[0]
            waiting = sum(n for path, n in held.items() if placed[path].memory_kind == HOST)
            lines.append(
                f"{field.name}: {total:,} B, {sum(held.values()) - waiting:,} B a device"
                + (f" and {waiting:,} B on its host" if waiting else "")
                + f", {share:.2%} whole on every device"
            )
    return lines
