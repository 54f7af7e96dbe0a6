"""What a network predicts, and how one prediction is read as another.

With alpha = sqrt(alpha_bar_t) and sigma = sqrt(1 - alpha_bar_t):

    x_t = alpha x_0 + sigma epsilon           v = alpha epsilon - sigma x_0

Given x_t, any of x_0, epsilon and v determines the others, and each is affine in the other:
target = a(t) x_t + b(t) prediction. v is from Salimans & Ho 2022, section 4 and appendix D.
"""

import enum

import numpy as np

from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


class PredictionType(enum.Enum):
    """What the network's output means."""

    X0 = "x0"
    EPSILON = "epsilon"
    V = "v"


def conversion(
    schedule: NoiseSchedule, source: PredictionType, target: PredictionType
) -> tuple[np.ndarray, np.ndarray]:
    """Float64 (a, b), each [T], with target = a[t] x_t + b[t] source.

    Raises:
      UserError: epsilon is to be converted at a step without signal (zero terminal SNR).
    """
    alpha, sigma = np.sqrt(schedule.alpha_bars), np.sqrt(1 - schedule.alpha_bars)
    if source is target:
        return np.zeros_like(alpha), np.ones_like(alpha)
    if source is PredictionType.EPSILON and alpha[-1] == 0:
        raise UserError(
            "an epsilon prediction says nothing about x_0 at zero terminal SNR: "
            "use prediction x0 or v, or a schedule without zero terminal SNR"
        )
    X0, EPSILON, V = PredictionType.X0, PredictionType.EPSILON, PredictionType.V
    formulas = {
        (EPSILON, X0): lambda: (1 / alpha, -sigma / alpha),
        (V, X0): lambda: (alpha, -sigma),
        (X0, EPSILON): lambda: (1 / sigma, -alpha / sigma),
        (V, EPSILON): lambda: (sigma, alpha),
        (X0, V): lambda: (alpha / sigma, -1 / sigma),
        (EPSILON, V): lambda: (-sigma / alpha, 1 / alpha),
    }
    return formulas[source, target]()
