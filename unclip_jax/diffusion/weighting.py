"""How much each timestep counts in the loss.

Errors of the three predictions at one x_t differ only by a factor of the step:

    |epsilon - epsilon_hat|^2 = SNR |x0 - x0_hat|^2,     |v - v_hat|^2 = (SNR + 1) |x0 - x0_hat|^2

so a weighting is stated once, on the x_0 error, and divided by that factor to act on the error that
the network is trained with. Weights are for squared errors; other losses use them as they are.

* unit: every step counts the same in the network's own error (DDPM's L_simple for epsilon);
* min_snr: min(SNR, gamma) on the x_0 error (Hang et al. 2023, gamma = 5);
* p2: 1 / (k + SNR)^gamma on the epsilon error (Choi et al. 2022, gamma = 1, k = 1).
"""

import numpy as np

from unclip_jax.diffusion.predictions import PredictionType
from unclip_jax.diffusion.schedule import NoiseSchedule

WEIGHTINGS = ("unit", "min_snr", "p2")


def loss_weights(
    schedule: NoiseSchedule,
    prediction: PredictionType,
    weighting: str,
    *,
    min_snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
) -> np.ndarray:
    """Float64 [T] factors of the error of `prediction`; weighting is one of `WEIGHTINGS`."""
    snr = schedule.snr
    if weighting == "unit":
        return np.ones_like(snr)
    if weighting == "min_snr":
        on_x0 = np.minimum(snr, min_snr_gamma)
    else:
        on_x0 = snr / (p2_k + snr) ** p2_gamma
    scale = {PredictionType.X0: 1.0, PredictionType.EPSILON: snr, PredictionType.V: snr + 1}
    return on_x0 / scale[prediction]
