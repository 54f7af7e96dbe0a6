"""`--config FILE:VARIANT --config.path.to.setting=VALUE …`, for the commands that take one."""

import argparse

from unclip_jax.config import RunConfig, load_config
from unclip_jax.errors import UserError

_PREFIX = "--config."


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--config`; overrides of single settings are taken out before argparse sees them."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE:VARIANT",
        help="such as configs/decoder.py:emoji, decoder:emoji for the shipped one, or a "
        "config.json; change single settings with --config.optim.learning_rate=1e-4",
    )


def config_from(args: argparse.Namespace) -> RunConfig:
    """The checked config that the command line asks for."""
    return load_config(args.config, args.overrides)


def split_overrides(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """(the other arguments, {dotted path: text}) of a command line; after `--` nothing is taken."""
    end = argv.index("--") if "--" in argv else len(argv)
    rest, overrides, waiting = [], {}, None
    for argument in argv[:end]:
        if waiting is not None:
            overrides[waiting], waiting = argument, None
        elif argument.startswith(_PREFIX):
            path, equals, text = argument.removeprefix(_PREFIX).partition("=")
            if equals:
                overrides[path] = text
            else:
                waiting = path
        else:
            rest.append(argument)
    if waiting is not None:
        raise UserError(f"{_PREFIX}{waiting}: needs a value, as in {_PREFIX}{waiting}=1")
    return rest + argv[end:], overrides
