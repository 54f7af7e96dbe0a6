"""What can be trained: `build(config, clip_model)` makes the `Stage` that a config describes."""

from unclip_jax.config.schema import (
    ClipModel,
    DecoderModel,
    PriorModel,
    RunConfig,
    UpsamplerModel,
)
from unclip_jax.errors import UserError
from unclip_jax.stages import clip, decoder, prior, upsampler
from unclip_jax.stages.sampling import check_sampling
from unclip_jax.stages.stage import Stage

__all__ = ["Stage", "build"]


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
