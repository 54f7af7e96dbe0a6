"""What can be trained: `build(config, clip_model)` makes the `Stage` that a config describes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from unclip_jax.config.schema import (
    ClipModel,
    DecoderModel,
    PriorModel,
    RunConfig,
    UpsamplerModel,
)
from unclip_jax.errors import UserError
from unclip_jax.models.batch_layout import batch_stays_split
from unclip_jax.models.logical_axes import logical_axes
from unclip_jax.stages import clip, decoder, prior, upsampler
from unclip_jax.stages.configured_sampler import check_sampling
from unclip_jax.stages.stage import Stage

__all__ = ["Stage", "build", "logical_axes", "with_rows_over"]


def build(config: RunConfig, clip_model: ClipModel | None = None) -> Stage:
    """The stage of a config.

    Args:
      clip_model: the frozen CLIP's sizes, for the stages that build on one.
    """
    if config.stage != "clip":
        check_sampling(config)
    match config.model:
        case ClipModel() as model:
            return clip.build(config, model)
        case UpsamplerModel() as model:
            return upsampler.build(config, model)
        case PriorModel() as model if clip_model:
            return prior.build(config, model, clip_model)
        case DecoderModel() as model if clip_model:
            return decoder.build(config, model, clip_model)
    raise UserError(f"stage {config.stage!r} needs a trained CLIP: set config.clip.path")


def with_rows_over(stage: Stage, axes: tuple[str, ...]) -> Stage:
    """The stage, its layers kept from moving a batch that is split over `axes` of the mesh in use.

    Needed where weights are split too (see `models.batch_layout`).
    """

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            with batch_stays_split(axes):
                return function(*args)

        return call

    preview = None if stage.preview is None else kept(stage.preview)
    return dataclasses.replace(stage, loss=kept(stage.loss), preview=preview)
