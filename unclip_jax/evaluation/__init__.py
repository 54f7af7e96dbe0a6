"""How good is it: retrieval, distances and prior metrics on embeddings, and their report."""

from unclip_jax.evaluation.generation import evaluate_generation
from unclip_jax.evaluation.prior import evaluate_prior
from unclip_jax.evaluation.report import Measurement, Report

__all__ = ["Measurement", "Report", "evaluate_generation", "evaluate_prior"]
