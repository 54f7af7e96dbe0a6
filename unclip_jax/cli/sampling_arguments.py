"""How stages sample, from the command line; shared by the commands that draw pictures."""

import argparse
import os
import pathlib
from typing import Any

from unclip_jax.cli.argument_types import positive
from unclip_jax.errors import UserError
from unclip_jax.generation import Cascade


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `sampling_overrides` reads, and `--batch-size`."""
    add = parser.add_argument
    add("--guidance-scale", type=float, metavar="S", help="of the decoder; 1 is none")
    add("--prior-guidance-scale", type=float, metavar="S", help="of the prior; 1 is none")
    add("--steps", type=int, metavar="N", help="of every stage")
    add("--sampler", metavar="NAME", help="of every stage: ddpm, ddim, dpm++2m …")
    add(
        "--set", action="append", default=[], metavar="STAGE.SETTING=VALUE", dest="settings",
        help="one setting of one stage, such as prior.candidates=2 or upsampler.steps=10",
    )  # fmt: skip
    add(
        "--batch-size", type=positive, metavar="B",
        help="pictures at a time; does not change them (default: all, up to 16)",
    )  # fmt: skip


def sampling_overrides(args: argparse.Namespace, cascade: Cascade) -> dict[str, dict[str, Any]]:
    """{stage: {setting: value}}; what is asked of one stage goes over what is asked of all."""
    shared = {"steps": args.steps, "sampler": args.sampler}
    found: dict[str, dict[str, Any]] = {
        name: {k: v for k, v in shared.items() if v is not None}
        for name in cascade.named()
        if name != "clip"
    }
    for stage, scale in (
        ("decoder", args.guidance_scale),
        ("prior", args.prior_guidance_scale),
    ):
        if scale is not None:
            found.setdefault(stage, {})["guidance_scale"] = scale
    for text in args.settings:
        path, equals, value = text.partition("=")
        stage, dot, name = path.partition(".")
        if not (equals and dot):
            raise UserError(f"--set {text}: write STAGE.SETTING=VALUE, as in decoder.steps=50")
        found.setdefault(stage, {})[name] = value
    return found


def make_folder(path: pathlib.Path) -> pathlib.Path:
    """Makes a folder for results; raises `UserError` if they can't be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path}: can't be written: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"--out {path}: can't be written: no permission")
    return path
