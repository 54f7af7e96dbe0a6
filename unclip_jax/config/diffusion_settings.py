"""Settings of the diffusion stages: what they learn, and how they draw."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Noise, target and loss; ignored by the stage `clip`."""

    schedule: str = "cosine"
    num_steps: int = 1000
    prediction: Literal["x0", "epsilon", "v"] = "epsilon"
    learned_variance: bool = False
    loss: Literal["l2", "l1", "huber"] = "l2"
    huber_delta: float = 1.0  # where the Huber loss turns from quadratic to linear
    weighting: Literal["unit", "min_snr", "p2"] = "unit"
    min_snr_gamma: float = 5.0
    p2_gamma: float = 1.0
    p2_k: float = 1.0
    vlb_weight: float = 1e-3
    time_sampler: Literal["uniform", "stratified", "importance"] = "uniform"
    reference_size: int | None = None  # picture side that `schedule` is for: log-SNR is shifted
    zero_terminal_snr: bool = False  # stretch the schedule until its last step is pure noise


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are drawn from this stage unless a command says otherwise."""

    sampler: str = "ddim"
    steps: int = 25
    spacing: str | None = None  # "10,10,3,2,2", "ddim25" or "fast27" instead of `steps`
    guidance_scale: float = 1.0
    text_guidance_scale: float | None = None  # of the decoder: the text's own, see docs/diffusion
    guidance_interval: tuple[int, ...] | None = None  # first and last timestep with guidance
    guidance_rescale: float = 0.0  # 0..1: how far to restore the standard deviation
    eta: float = 0.0  # of DDIM: 0 is deterministic, 1 has the variance of DDPM
    variance: Literal["fixed_small", "fixed_large", "learned_range"] | None = None  # of DDPM
    moments: tuple[float, ...] = ()  # of Analytic-DPM, as `unclip moments` estimates them
    clip_range: float | None = 1.0  # bound on the predicted x0; None leaves it free
    thresholding: Literal["static", "dynamic"] = "static"  # dynamic: by a quantile of |x0|
    threshold_quantile: float = 0.995
    low_noise: float = 0.0  # of an upsampler with noise_augmentation: put on the small picture
    candidates: int = 1  # of the prior: the one nearest to the text embedding is kept
    compute: Literal["float32", "bfloat16"] | None = None  # of the networks; None: as in training
