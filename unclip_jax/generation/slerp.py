"""Spherical interpolation, in float64 on the host.

    slerp(a, b, f) = (sin((1 - f) omega) a + sin(f omega) b) / sin(omega),    omega: angle of a, b

of unit vectors (Shoemake 1985). Others are turned likewise, and their lengths change evenly from
|a| to |b|. f = 0 gives a and f = 1 gives b, bit for bit; unit vectors give unit vectors throughout.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from unclip_jax.errors import UserError

NEARLY_PARALLEL = 1e-6  # radians; there a straight line is the same to float32


def slerp(
    first: Float[np.ndarray, "*data"],
    second: Float[np.ndarray, "*data"],
    fractions: Sequence[float],
) -> Float[np.ndarray, "f *data"]:
    """Float32 points on the way from `first` (0) to `second` (1).

    Raises:
      UserError: a zero vector, or two that point away from each other: no arc is the shortest.
    """
    a, b = (np.asarray(x, np.float64).reshape(-1) for x in (first, second))
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    if not length_a or not length_b:
        raise UserError("slerp: a vector of length 0 has no direction")
    unit_a, unit_b = a / length_a, b / length_b
    # Stable at all angles, where arccos of the product is not (Kahan).
    omega = 2 * np.arctan2(np.linalg.norm(unit_a - unit_b), np.linalg.norm(unit_a + unit_b))
    if np.pi - omega < NEARLY_PARALLEL:
        raise UserError("slerp: the two point away from each other, so no way is the shortest")
    points = [_point(unit_a, unit_b, omega, f) * _between(length_a, length_b, f) for f in fractions]
    ends = {0.0: a, 1.0: b}
    rows = [ends.get(float(f), point) for f, point in zip(fractions, points, strict=True)]
    return np.stack(rows).astype(np.float32).reshape(len(rows), *np.shape(first))


def _point(a: np.ndarray, b: np.ndarray, omega: float, fraction: float) -> np.ndarray:
    if omega < NEARLY_PARALLEL:
        return _between(a, b, fraction)
    return (np.sin((1 - fraction) * omega) * a + np.sin(fraction * omega) * b) / np.sin(omega)


def _between(a: Any, b: Any, fraction: float) -> np.ndarray:
    return np.asarray((1 - fraction) * a + fraction * b)
