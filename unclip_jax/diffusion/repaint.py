"""Filling in the missing part of a picture with any denoiser (RePaint, Lugmayr et al. 2022).

After each reverse step the known part is put back, as noisy as the step left the rest:

    x_{t-1} = mask * step(x_t) + (1 - mask) * q(x_{t-1} | known picture),      mask = 1: missing

What was put back does not know what was drawn beside it, so stretches of `jump` steps are walked
`resamples` times: noise is added to go back to the start of the stretch (a single draw of the
forward process, which has the distribution of many small ones), and the network may then make the
two parts agree. The last step puts the known picture back itself: those pixels are returned bit for
bit.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from unclip_jax.core.rng import fold_in_name
from unclip_jax.diffusion.denoiser import Denoiser
from unclip_jax.diffusion.samplers.base import Row, Sampler, State, step_noise
from unclip_jax.diffusion.schedule import NoiseSchedule
from unclip_jax.errors import UserError


@partial(jax.tree_util.register_dataclass, data_fields=["picture", "mask"], meta_fields=[])
@dataclass(frozen=True)
class Known:
    """picture [B, ...] in the range of x_0, and mask, 1 where it is missing; they broadcast."""

    picture: Any
    mask: Any


def repaint_sampler(
    sampler: Sampler, schedule: NoiseSchedule, *, jump: int = 5, resamples: int = 2
) -> Sampler:
    """The rows of a sampler, with what `repaint` needs beside them.

    Args:
      sampler: without memory, such as ddpm and ddim; its table is not traced.
      schedule: the one the network was trained with.
      jump: length of the stretches, in steps; they are counted from the noisy end.
      resamples: how often each is walked; 1 only puts the known part back.

    Raises:
      UserError: a sampler with memory, which would remember what was replaced, or counts below 1.
    """
    if sampler.memory_size:
        raise UserError(
            f"sampler {sampler.name!r} can't keep a part of the picture: use ddpm or ddim"
        )
    if jump < 1 or resamples < 1:
        raise UserError(f"jump and resamples must be at least 1, got {jump} and {resamples}")
    steps = len(sampler)
    # alpha_bar before each step, and after the last.
    levels = np.append(schedule.alpha_bars[np.asarray(sampler.table["t"])], 1.0)
    order: list[int] = []
    back = []  # the level to which noise is added after each row, its own if there is none
    for start in range(0, steps, jump):
        stretch = list(range(start, min(start + jump, steps)))
        for repetition in range(resamples):
            order += stretch
            again = repetition < resamples - 1
            back += [row + 1 for row in stretch[:-1]] + [start if again else stretch[-1] + 1]
    rows, targets = np.array(order), np.array(back)
    after = levels[rows + 1]
    ratio = levels[targets] / after
    table = {name: np.asarray(column)[rows] for name, column in sampler.table.items()}
    table |= {
        "index": np.arange(len(rows), dtype=np.int32),
        "known_x0": np.sqrt(after).astype(np.float32),
        "known_noise": np.sqrt(1 - after).astype(np.float32),
        "back_x": np.sqrt(ratio).astype(np.float32),
        "back_noise": np.sqrt(1 - ratio).astype(np.float32),
    }
    return replace(sampler, table=table)


def repaint(
    sampler: Sampler,
    denoiser: Denoiser,
    x_T: Float[Array, "b *data"],
    keys: Key[Array, " b"],
    known: Known,
) -> Float[Array, "b *data"]:
    """x_0 that equals the known picture where the mask is 0.

    Args:
      sampler: as `repaint_sampler` makes it.
    """
    step_keys, known_keys, back_keys = (
        fold_in_name(keys, name) for name in ("sampler", "known", "back")
    )

    def body(x: Array, row: Row) -> tuple[Array, None]:
        def noise(stream: Key[Array, " b"]) -> Array:
            return step_noise(stream, row["index"], x.shape[1:])

        fresh = noise(step_keys) if sampler.stochastic else None
        x = sampler.step(denoiser, State(x), row, fresh).x
        put_back = row["known_x0"] * known.picture + row["known_noise"] * noise(known_keys)
        x = known.mask * x + (1 - known.mask) * put_back
        return row["back_x"] * x + row["back_noise"] * noise(back_keys), None

    return jax.lax.scan(body, x_T, sampler.table)[0]
