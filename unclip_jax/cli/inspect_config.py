"""Print the resolved config: every setting with its value, as JSON.

Example:
  unclip inspect config --config decoder:emoji --config.clip.path=runs/clip
"""

import argparse
import json

from unclip_jax.cli.config_arguments import add_config_arguments, config_from
from unclip_jax.config import to_mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the config; exit code 0."""
    print(json.dumps(to_mapping(config_from(args)), indent=2))
    return 0
