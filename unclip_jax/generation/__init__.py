"""From text to pictures with trained stages."""

from unclip_jax.generation.cascade import Cascade, TrainedStage, compose
from unclip_jax.generation.pipeline import Generated, Pipeline

__all__ = ["Cascade", "Generated", "Pipeline", "TrainedStage", "compose"]
