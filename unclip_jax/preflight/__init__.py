"""Will it fit, and how fast should it be: what a stage costs, and what a run does on a machine."""

from unclip_jax.preflight.abstract import abstract_batch, abstract_frozen
from unclip_jax.preflight.flops import Flops, count_flops
from unclip_jax.preflight.stage_cost import StageCost, stage_cost, stage_flops

__all__ = [
    "Flops",
    "StageCost",
    "abstract_batch",
    "abstract_frozen",
    "count_flops",
    "stage_cost",
    "stage_flops",
]
