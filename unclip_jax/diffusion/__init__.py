"""The mathematics of diffusion: schedules, process, predictions, losses, guidance, samplers.

Knows arrays and keys; no networks, no files. See docs/diffusion.md for the concepts.
"""

from unclip_jax.diffusion.bound import Bound, variational_bound
from unclip_jax.diffusion.denoiser import Denoised, Denoiser, make_denoiser
from unclip_jax.diffusion.guidance import Guidance
from unclip_jax.diffusion.objective import Objective, split_output, training_loss
from unclip_jax.diffusion.predictions import PredictionType
from unclip_jax.diffusion.process import Gaussian, GaussianProcess, Variance
from unclip_jax.diffusion.quartiles import QuartileSums, quartile_means, quartile_sums
from unclip_jax.diffusion.repaint import Known, repaint, repaint_sampler
from unclip_jax.diffusion.respacing import respace, spaced_timesteps
from unclip_jax.diffusion.samplers import (
    SAMPLERS,
    Sampler,
    initial_noise,
    make_sampler,
    sample,
)
from unclip_jax.diffusion.samplers.analytic_dpm import Moments, estimate_moments, merge_moments
from unclip_jax.diffusion.schedule import (
    SCHEDULES,
    NoiseSchedule,
    make_schedule,
    rescale_zero_terminal_snr,
    shift_log_snr,
)
from unclip_jax.diffusion.thresholding import DynamicThresholding, StaticThresholding
from unclip_jax.diffusion.timesteps import (
    importance_weights,
    sample_important_timesteps,
    sample_timesteps,
    update_second_moments,
)

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Bound",
    "Denoised",
    "Denoiser",
    "DynamicThresholding",
    "Gaussian",
    "GaussianProcess",
    "Guidance",
    "Known",
    "Moments",
    "NoiseSchedule",
    "Objective",
    "PredictionType",
    "QuartileSums",
    "Sampler",
    "StaticThresholding",
    "Variance",
    "estimate_moments",
    "importance_weights",
    "initial_noise",
    "make_denoiser",
    "make_sampler",
    "make_schedule",
    "merge_moments",
    "quartile_means",
    "quartile_sums",
    "repaint",
    "repaint_sampler",
    "rescale_zero_terminal_snr",
    "respace",
    "sample",
    "sample_important_timesteps",
    "sample_timesteps",
    "shift_log_snr",
    "spaced_timesteps",
    "split_output",
    "training_loss",
    "update_second_moments",
    "variational_bound",
]
