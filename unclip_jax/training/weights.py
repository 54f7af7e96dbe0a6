"""Which weights of a run: the averaged ones, the last ones, or another average, by name.

ema         the average of config.ema.decay
raw         those that the optimiser moves
ema:0.999   another average, of config.ema.others
sigma:0.12  an average of this relative length, made of those of config.ema.power that the
            run's checkpoints hold (`post_hoc.py`); more checkpoints (`train.keep_every`) make
            it more exact
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from unclip_jax.config.checks import MAX_POWER_LENGTH
from unclip_jax.config.schema import Ema
from unclip_jax.errors import UserError
from unclip_jax.parallel.processes import say
from unclip_jax.training.checkpoint import directory
from unclip_jax.training.ema import name_of
from unclip_jax.training.post_hoc import Profile, coefficients, distance
from unclip_jax.training.restore import (
    DamagedCheckpoint,
    complete_steps,
    load_params,
    read_params,
)

FORMS = "ema, raw, ema:DECAY or sigma:LENGTH"


def load_weights(
    workdir: pathlib.Path, abstract: Any, weights: str, config: Ema
) -> tuple[Any, int]:
    """(parameters, step) of a run by the name of the weights; see the module.

    Raises:
      UserError: for a name that is none, or weights that the run has not.
    """
    kind, _, text = weights.partition(":")
    if weights in ("ema", "raw"):
        return load_params(workdir, abstract, weights=weights)
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is None or kind not in ("ema", "sigma"):
        raise UserError(f"weights {weights!r}: write {FORMS}")
    if kind == "sigma":
        return _of_length(workdir, abstract, value, config)
    if value == config.decay:
        return load_params(workdir, abstract, weights="ema")
    if value not in config.others:
        known = ", ".join(f"ema:{decay}" for decay in (config.decay, *config.others))
        raise UserError(f"{workdir} has no average {weights}: it has {known} and raw")
    return load_params(workdir, abstract, weights=name_of("ema", value))


def _of_length(workdir: pathlib.Path, abstract: Any, length: float, config: Ema) -> tuple[Any, int]:
    """The average of a relative length at the newest checkpoint that is whole."""
    if not config.power:
        raise UserError(f"{workdir} can't make weights sigma:{length}: it ran without ema.power")
    if not 0 < length < MAX_POWER_LENGTH:
        raise UserError(f"weights sigma:{length}: a length is between 0 and {MAX_POWER_LENGTH}")
    folder = directory(workdir)
    steps = list(complete_steps(folder)) if folder.is_dir() else []
    while steps:
        wanted = Profile(steps[0], length)
        stored = [Profile(step, known) for step in steps for known in config.power]
        shares = coefficients(stored, wanted)
        say(
            f"sigma:{length} at step {wanted.step} of {len(steps)} checkpoints: its profile is met "
            f"to {distance(stored, wanted, shares):.1%}"
        )
        try:
            return _combined(folder, abstract, stored, shares), wanted.step
        except _DamagedAt as error:
            say(f"warning: {folder / str(error.step)} is damaged ({error}): it is left out")
            steps.remove(error.step)
    raise UserError(f"{folder} holds no complete checkpoint")


class _DamagedAt(Exception):
    def __init__(self, step: int, why: DamagedCheckpoint):
        super().__init__(str(why))
        self.step = step


def _combined(
    folder: pathlib.Path, abstract: Any, stored: Sequence[Profile], shares: np.ndarray
) -> Any:
    """The sum of the stored averages times their shares, one in memory at a time."""
    total = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract)
    for profile, share in zip(stored, shares, strict=True):
        name = name_of("power", profile.length)
        try:
            tree = read_params(folder / str(profile.step), abstract, weights=name)
        except DamagedCheckpoint as error:
            raise _DamagedAt(profile.step, error) from None
        weight = np.float32(share)
        total = jax.tree.map(lambda t, x, w=weight: t + w * np.asarray(x), total, tree)
    return total
