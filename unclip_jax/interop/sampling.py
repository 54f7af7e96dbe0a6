"""Changing how a stage of a bundle samples: one file is replaced, the weights stay as they are."""

import dataclasses
import pathlib

from unclip_jax.config.diffusion_settings import Sampling
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.interop import manifest, model_card


def set_sampling(folder: pathlib.Path, name: str, sampling: Sampling) -> None:
    """Writes the sampling of the stage `name` into a bundle, and into its model card.

    Raises:
      UserError: no such stage, or a bundle that can't be written.
    """
    found = manifest.read(folder)
    if name not in found.stages:
        raise UserError(f"{folder} has no stage {name!r}{did_you_mean(name, found.stages)}")
    before = found.stages[name]
    after = dataclasses.replace(
        before, config=dataclasses.replace(before.config, sampling=sampling)
    )
    content = dataclasses.replace(found, stages={**found.stages, name: after})
    card = folder / "README.md"
    try:
        _replace(folder / manifest.FILE, manifest.to_json(content))
        if card.is_file():
            text = card.read_text(encoding="utf-8")
            _replace(card, text.replace(model_card.row(name, before), model_card.row(name, after)))
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}") from error


def _replace(path: pathlib.Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
