"""Train one stage, or resume it: the workdir's newest checkpoint is continued.

Stops cleanly on SIGTERM or Ctrl-C (state saved, exit code 75); a second signal ends it at once.

Example:
  unclip train --config clip:emoji --workdir runs/clip --config.data.train='data/train-*.tar'
  unclip train --config decoder:emoji --workdir runs/decoder --config.clip.path=runs/clip
"""

import argparse
import pathlib

from unclip_jax import stages
from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.cli.frozen import frozen_parameters, load_clip
from unclip_jax.training.run import train

EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped by a signal, start it again to go on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config_arguments(parser)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the run's directory")


def run(args: argparse.Namespace) -> int:
    """Trains; exit code 0 when complete, 75 when stopped by a signal."""
    config = config_from(args)
    if config.clip.path is None:
        stage, frozen = stages.build(config), {}
    else:
        clip = load_clip(config.clip.path)
        stage = stages.build(config, clip.model)
        frozen = frozen_parameters(config, clip, args.workdir)
    return 0 if train(config, stage, frozen, args.workdir) else EXIT_STOPPED
