"""Noise schedules: how much signal is left after each of T discrete steps.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise,      t = 0 cleanest, T-1 noisiest
    alpha_bar_t = prod_{i<=t} (1 - beta_i),      SNR_t = alpha_bar_t / (1 - alpha_bar_t)

A schedule is its alpha_bars, in float64 numpy; betas and the rest follow from them. Coefficients
are cast to float32 only where they meet an array: near t = T-1 the cosine schedule has alpha_bar =
2e-9, which float32 arithmetic would get wrong by 1e-5 relative.

Sources: linear, Ho et al. 2020 (DDPM); cosine, Nichol & Dhariwal 2021 (Improved DDPM) eq. 17, known
as squaredcos_cap_v2; scaled linear, Rombach et al. 2022 (latent diffusion); sigmoid in beta, Xu et
al. 2022 (GeoDiff). Log-SNR shift: Hoogeboom et al. 2023 (simple diffusion) section 3.1. Zero
terminal SNR: Lin et al. 2024, algorithm 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from unclip_jax.diffusion.choices import build
from unclip_jax.errors import UserError

MAX_BETA = 0.999
"""Improved DDPM caps betas here: the cosine curve itself ends in beta = 1, a singular step."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """T steps of a noise schedule.

    Attributes:
      alpha_bars: float64 [T], strictly falling, in (0, 1]; the last may be 0 (zero terminal SNR).
      timesteps: int32 [T], the step of the original schedule that each of these is; 0..T-1 unless
        the schedule was respaced. This is what a network is given as t.
    """

    alpha_bars: np.ndarray
    timesteps: np.ndarray

    def __post_init__(self) -> None:
        alpha_bars = np.array(self.alpha_bars, np.float64)
        timesteps = np.array(self.timesteps, np.int32)
        if alpha_bars.ndim != 1 or alpha_bars.shape != timesteps.shape or not alpha_bars.size:
            raise UserError(
                f"a noise schedule needs as many alpha_bars as timesteps, at least one; got shapes "
                f"{alpha_bars.shape} and {timesteps.shape}"
            )
        falling = np.all(np.diff(alpha_bars) < 0) and 0 < alpha_bars[0] <= 1
        if not falling or alpha_bars[-1] < 0 or np.any(alpha_bars[:-1] == 0):
            raise UserError("alpha_bars must fall strictly from at most 1 to at least 0")
        for name, array in (("alpha_bars", alpha_bars), ("timesteps", timesteps)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def num_steps(self) -> int:
        return len(self.alpha_bars)

    @property
    def alpha_bars_prev(self) -> np.ndarray:
        """alpha_bar of the next cleaner step; 1 before step 0."""
        return np.concatenate([[1.0], self.alpha_bars[:-1]])

    @property
    def alphas(self) -> np.ndarray:
        return self.alpha_bars / self.alpha_bars_prev

    @property
    def betas(self) -> np.ndarray:
        return 1 - self.alphas

    @property
    def snr(self) -> np.ndarray:
        return self.alpha_bars / (1 - self.alpha_bars)

    @property
    def log_snr(self) -> np.ndarray:
        """log(alpha_bar / (1 - alpha_bar)); -inf at zero terminal SNR."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha_bars) - np.log1p(-self.alpha_bars)


def from_betas(betas: np.ndarray) -> NoiseSchedule:
    """The schedule with the given betas [T]."""
    alpha_bars = np.cumprod(1 - np.asarray(betas, np.float64))
    return NoiseSchedule(alpha_bars, np.arange(len(alpha_bars)))


def cosine(num_steps: int, *, offset: float = 0.008, max_beta: float = MAX_BETA) -> NoiseSchedule:
    """squaredcos_cap_v2: alpha_bar(u) = cos^2((u + offset) / (1 + offset) pi / 2), betas capped."""
    u = np.arange(num_steps + 1, dtype=np.float64) / num_steps
    curve = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1 - curve[1:] / curve[:-1], max_beta))


def linear(num_steps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """Betas rise evenly. The end points are meant for 1000 steps and scale as 1000 / num_steps."""
    betas = np.linspace(beta_start, beta_end, num_steps, dtype=np.float64)
    return from_betas(np.minimum(betas * (1000 / num_steps), MAX_BETA))


def scaled_linear(
    num_steps: int, *, beta_start: float = 0.00085, beta_end: float = 0.012
) -> NoiseSchedule:
    """Square roots of the betas rise evenly; end points scale as in `linear`."""
    roots = np.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=np.float64)
    return from_betas(np.minimum(roots**2 * (1000 / num_steps), MAX_BETA))


def sigmoid(
    num_steps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02, extent: float = 6.0
) -> NoiseSchedule:
    """Betas rise as a logistic curve over [-extent, extent]; end points scale as in `linear`."""
    curve = 1 / (1 + np.exp(-np.linspace(-extent, extent, num_steps, dtype=np.float64)))
    betas = curve * (beta_end - beta_start) + beta_start
    return from_betas(np.minimum(betas * (1000 / num_steps), MAX_BETA))


SCHEDULES: Mapping[str, Callable[..., NoiseSchedule]] = MappingProxyType(
    {
        "cosine": cosine,
        "squaredcos_cap_v2": cosine,
        "linear": linear,
        "scaled_linear": scaled_linear,
        "sigmoid": sigmoid,
    }
)


def make_schedule(name: str, num_steps: int = 1000, **options: float) -> NoiseSchedule:
    """A schedule by name, see `SCHEDULES`; options are those of the named function.

    Raises:
      UserError: unknown name or option, or fewer than one step.
    """
    if num_steps < 1:
        raise UserError(f"a noise schedule needs at least one step, got {num_steps}")
    return build(SCHEDULES, "noise schedule", name, num_steps, **options)


def shift_log_snr(schedule: NoiseSchedule, size: int, reference_size: int = 64) -> NoiseSchedule:
    """The schedule for images of `size` pixels a side, from one that suits `reference_size`.

    log SNR' = log SNR + 2 log(reference_size / size): a larger image averages more pixels into the
    same structure, so it needs more noise to hide it.
    """
    log_snr = schedule.log_snr + 2 * np.log(reference_size / size)
    return NoiseSchedule(1 / (1 + np.exp(-log_snr)), schedule.timesteps)


def rescale_zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """sqrt(alpha_bar) moved and stretched so that the last is 0 and the first is unchanged.

    Then the last step is pure noise, as sampling assumes. Predict x0 or v with it: epsilon says
    nothing about x_0 where there is no signal.
    """
    if schedule.num_steps < 2:
        raise UserError("zero terminal SNR needs a schedule of at least two steps")
    root = np.sqrt(schedule.alpha_bars)
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return NoiseSchedule(root**2, schedule.timesteps)
