"""Train one stage, or resume it: the workdir's newest whole checkpoint is continued.

Stops cleanly on SIGTERM or Ctrl-C (state saved, exit code 75); a second signal ends it at once.
Started once per host it trains on all of them: docs/surviving.md says how they find each other.

Example:
  unclip train --config clip:emoji --workdir runs/clip --config.data.train='data/train-*.tar'
  unclip train --config decoder:emoji --workdir runs/decoder --config.clip.path=runs/clip
"""

import argparse
import hashlib
import json
import pathlib
from typing import Any

from unclip_jax import stages
from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.cli.frozen import frozen_parameters, load_clip
from unclip_jax.cli.initial import base_parameters, initial_parameters
from unclip_jax.config import RunConfig, to_mapping
from unclip_jax.errors import EXIT_STOPPED
from unclip_jax.parallel.processes import join, together
from unclip_jax.preflight import abstract_batch, stage_flops
from unclip_jax.stages import lora
from unclip_jax.stages.features import towers_in_use
from unclip_jax.stages.stage import Stage
from unclip_jax.training.run import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config_arguments(parser)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the run's directory")


def run(args: argparse.Namespace) -> int:
    """Trains; exit code 0 when complete, 75 when stopped by a signal."""
    config = config_from(args)
    cluster = join(
        {"config": _digest(config), "workdir": str(args.workdir.absolute())},
        timeout=config.faults.join_seconds,
        heartbeat=config.faults.heartbeat_seconds,
    )
    with together(cluster):
        stage, frozen, flops = _stage(config, args.workdir)
        initial = initial_parameters(config, args.workdir)
        done = train(
            config,
            stage,
            frozen,
            args.workdir,
            initial=initial,
            cluster=cluster,
            flops_per_example=flops,
        )
    return 0 if done else EXIT_STOPPED


def _stage(config: RunConfig, workdir: pathlib.Path) -> tuple[Stage, dict[str, Any], float]:
    """(stage, what it reads and does not train, FLOPs of training one example)."""
    model, frozen = None, {}
    if config.clip.path is not None:
        clip = load_clip(config.clip.path)
        model, frozen = clip.model, frozen_parameters(config, clip, workdir)
    stage = stages.build(config, model)
    if "clip" in frozen:
        frozen["clip"] = towers_in_use(config, stage, frozen["clip"])
    if config.lora.rank:
        base = base_parameters(config, workdir)
        stage, frozen = lora.adapt(stage, config.lora, base), {**frozen, lora.BASE: base}
    batch = abstract_batch(stage.needs, config.train.batch_size, model)
    return stage, frozen, stage_flops(stage, frozen, batch).train


def _digest(config: RunConfig) -> str:
    text = json.dumps(to_mapping(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
