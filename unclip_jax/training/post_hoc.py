"""Averages of any length, made after the run from those that its checkpoints hold.

Karras et al. 2023, arXiv 2312.02696, section 3.2 and appendix C. A power-function average of gamma
after t updates is the integral of the weights with the density p(tau) = (gamma + 1) tau^gamma /
t^(gamma+1) on (0, t). The density that is asked for is approximated by those of the stored averages
in the sense of least squares, and the same combination of the averages is taken. With

    <p_a, p_b> = (gamma_a + 1)(gamma_b + 1) (t_a / t_b)^e / ((gamma_a + gamma_b + 1) max(t_a, t_b)),
    e = gamma_b if t_a < t_b else -gamma_a

the coefficients x solve A x = b, where A has the products of the stored densities with each other
and b those with the wanted one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unclip_jax.training.ema import gamma_of


@dataclasses.dataclass(frozen=True)
class Profile:
    """A power-function average after `step` updates; `length` is its sigma over the run's."""

    step: int
    length: float


def coefficients(stored: Sequence[Profile], wanted: Profile) -> np.ndarray:
    """What to multiply the stored averages by, float64 [len(stored)], before they are added."""
    return np.linalg.lstsq(_products(stored, stored), _products(stored, [wanted]))[0][:, 0]


def distance(stored: Sequence[Profile], wanted: Profile, weights: np.ndarray) -> float:
    """||sum of weighted stored densities - wanted|| / ||wanted||, from 0 (exact) to about 1."""
    own = _products([wanted], [wanted])[0, 0]
    cross = weights @ _products(stored, [wanted])[:, 0]
    square = own - 2 * cross + weights @ _products(stored, stored) @ weights
    return float(np.sqrt(max(0.0, square) / own))


def _products(a: Sequence[Profile], b: Sequence[Profile]) -> np.ndarray:
    t_a, t_b = (np.array([p.step for p in side], np.float64) for side in (a, b))
    g_a, g_b = (np.array([gamma_of(p.length) for p in side]) for side in (a, b))
    t_a, g_a = t_a[:, None], g_a[:, None]
    ratio = (t_a / t_b) ** np.where(t_a < t_b, g_b, -g_a)
    return (g_a + 1) * (g_b + 1) * ratio / ((g_a + g_b + 1) * np.maximum(t_a, t_b))
