"""From text to pictures with trained stages."""

from unclip_jax.generation.cascade import Cascade, TrainedStage, compose
from unclip_jax.generation.pipeline import Pipeline
from unclip_jax.generation.results import Edited, Generated

__all__ = ["Cascade", "Edited", "Generated", "Pipeline", "TrainedStage", "compose"]
