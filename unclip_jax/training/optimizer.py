"""Optimisers and learning-rate schedules by name, on optax.

Weight decay applies to matrices, kernels and embedding tables: biases, gains and single vectors
are left alone, as in CLIP and GPT. Biases and gains go by their names, since layers stacked for a
scan give them a second dimension.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from unclip_jax.config.schema import Optim
from unclip_jax.training.clipping import adaptive_clip
from unclip_jax.training.matrices import muon_dimensions

NEVER_DECAYED = ("bias", "scale")


def learning_rate(config: Optim, *, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then the named decay over what is left of `total_steps`."""
    peak = config.learning_rate
    rest = max(1, total_steps - warmup_steps)
    after: optax.Schedule = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "rsqrt": lambda: _rsqrt(peak, max(1, warmup_steps)),
    }[config.schedule]()
    warmup = optax.linear_schedule(peak / max(1, warmup_steps), peak, max(1, warmup_steps - 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def _rsqrt(peak: float, scale: int) -> optax.Schedule:
    return lambda step: peak * (scale / (scale + step)) ** 0.5


def decay_mask(params: Any) -> Any:
    """True for the arrays that weight decay shrinks."""

    def decays(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim >= 2 and name not in NEVER_DECAYED

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: Optim, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The gradient transformation of a run: clip by unit and by global norm, then the optimiser."""
    decay: dict[str, Any] = {"weight_decay": config.weight_decay}
    betas = {"b1": config.beta1, "b2": config.beta2}
    builders: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adamw": lambda: optax.adamw(schedule, **betas, eps=config.eps, **decay, mask=decay_mask),
        "lion": lambda: optax.lion(schedule, **betas, **decay, mask=decay_mask),
        "adafactor": lambda: optax.adafactor(
            schedule, weight_decay_rate=config.weight_decay or None, weight_decay_mask=decay_mask
        ),
        "muon": lambda: _muon(config, schedule),
    }
    clips = []
    if config.adaptive_clip is not None:
        clips.append(adaptive_clip(config.adaptive_clip))
    if config.clip_norm is not None:
        clips.append(optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*clips, builders[config.name]())


def _muon(config: Optim, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Muon inside blocks and Nesterov's Adam elsewhere, with one rate and one decay for both.

    Orthogonal updates are scaled to the root mean square of Adam's, 0.2 (Liu et al. 2025, arXiv
    2502.16982), so that a rate tuned for AdamW serves.
    """
    directions = contrib.muon(
        1.0,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        eps=config.eps,
        muon_weight_dimension_numbers=muon_dimensions,
        consistent_rms=0.2,
    )
    return optax.chain(
        directions,
        optax.scale(-1.0),  # it has already turned downhill, which the schedule does below
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        optax.scale_by_learning_rate(schedule),
    )
