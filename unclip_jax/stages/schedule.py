"""The noise schedule that a config describes: training and sampling must agree on it."""

from unclip_jax.config.schema import RunConfig
from unclip_jax.diffusion import (
    NoiseSchedule,
    make_schedule,
    rescale_zero_terminal_snr,
    shift_log_snr,
)


def training_schedule(config: RunConfig) -> NoiseSchedule:
    """By name, then shifted for the stage's picture size, then stretched to end in pure noise."""
    diffusion = config.diffusion
    schedule = make_schedule(diffusion.schedule, diffusion.num_steps)
    if diffusion.reference_size is not None:
        # Only stages with pictures may have it, see `config.checks`.
        size: int = config.model.image_size  # type: ignore[union-attr]
        schedule = shift_log_snr(schedule, size, diffusion.reference_size)
    return rescale_zero_terminal_snr(schedule) if diffusion.zero_terminal_snr else schedule
