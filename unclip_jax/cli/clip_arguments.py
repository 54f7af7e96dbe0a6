"""`--clip-config FILE:VARIANT`: the CLIP of a prior or decoder, where only its sizes matter."""

import argparse

from unclip_jax.cli.frozen import load_clip
from unclip_jax.config import RunConfig, load_config
from unclip_jax.config.schema import ClipModel
from unclip_jax.errors import UserError


def add_clip_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument(
        "--clip-config",
        metavar="FILE:VARIANT",
        help="the CLIP of a prior or decoder, by its config",
    )


def clip_model(config: RunConfig, spec: str | None) -> ClipModel | None:
    """The sizes of the CLIP that `spec` names, else of config.clip.path; None without either."""
    if spec is not None:
        model = load_config(spec).model
        if not isinstance(model, ClipModel):
            raise UserError(f"--clip-config {spec}: is no config of a CLIP")
        return model
    return None if config.clip.path is None else load_clip(config.clip.path).model
