"""Sampling with fewer steps than training: which timesteps to visit, and the schedule they form.

The spacing rules are those of Improved DDPM and GLIDE (`space_timesteps`), digit for digit, because
imported models were tuned with them:

* N, "N" or [n_1, .., n_k] ("n_1,..,n_k"): T is cut into k sections; section i is visited n_i times,
  evenly, both of its ends included, rounding half to even;
* "ddimN": 0, s, 2s, .. with the one integer stride s that gives N steps. Does not reach T-1;
* "fast27": GLIDE's upsampler, sections 10,10,3,2,2 with T-1 replaced by T-3.

One exception: a single step (N = 1) is T-1. The published rule gives 0, which asks a network for
pure noise to be read as a nearly clean image.
"""

from collections.abc import Sequence

import numpy as np

from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError

Spacing = int | str | Sequence[int]


def spaced_timesteps(num_steps: int, spec: Spacing) -> np.ndarray:
    """The timesteps to visit, int32 [N], rising, out of 0..num_steps-1.

    Raises:
      UserError: a spec that cannot be read or asks for more steps than there are.
    """
    if isinstance(spec, str) and spec == "fast27":
        kept = set(_sections(num_steps, [10, 10, 3, 2, 2])) - {num_steps - 1}
        return np.array(sorted(kept | {num_steps - 3}), np.int32)
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _even_stride(num_steps, _integer(spec[len("ddim") :], spec))
    if isinstance(spec, str):
        spec = [_integer(part, spec) for part in spec.split(",")]
    counts = [spec] if isinstance(spec, int | np.integer) else list(spec)
    if list(counts) == [1]:
        return np.array([num_steps - 1], np.int32)
    return np.array(_sections(num_steps, counts), np.int32)


def respace(schedule: NoiseSchedule, timesteps: Sequence[int] | np.ndarray) -> NoiseSchedule:
    """The sub-schedule that visits only `timesteps` (positions in `schedule`, rising).

    Its alpha_bars are the original ones at those positions, so its betas are those of the longer
    jumps; `.timesteps` keeps the numbers of the original schedule.
    """
    timesteps = np.asarray(timesteps)
    inside = timesteps.size and timesteps[0] >= 0 and timesteps[-1] < schedule.num_steps
    if not inside or np.any(np.diff(timesteps) <= 0):
        raise UserError(
            f"timesteps must rise strictly within 0..{schedule.num_steps - 1}, got {timesteps}"
        )
    return NoiseSchedule(schedule.alpha_bars[timesteps], schedule.timesteps[timesteps])


def _sections(num_steps: int, counts: Sequence[int]) -> list[int]:
    size, longer = divmod(num_steps, len(counts))
    timesteps, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < longer)
        if not 1 <= count <= length:
            raise UserError(f"cannot visit {count} of the {length} timesteps from {start} on")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        # A running sum, not i * stride: the two round differently, and this is the published one.
        position = 0.0
        for _ in range(count):
            timesteps.append(start + round(position))
            position += stride
        start += length
    return timesteps


def _even_stride(num_steps: int, count: int) -> np.ndarray:
    for stride in range(1, num_steps + 1):
        timesteps = np.arange(0, num_steps, stride, dtype=np.int32)
        if len(timesteps) == count:
            return timesteps
    raise UserError(f"no integer stride visits exactly {count} of {num_steps} timesteps")


def _integer(text: str, spec: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(
            f"cannot read sampling steps {spec!r}: write a count (25), sections (10,10,3,2,2), "
            f"ddim25 or fast27"
        )
    return int(text)
