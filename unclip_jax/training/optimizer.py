"""Optimisers and learning-rate schedules by name, on optax.

Weight decay applies to matrices, kernels and embedding tables: biases, gains and single vectors
are left alone, as in CLIP and GPT. Biases and gains go by their names, since layers stacked for a
scan give them a second dimension.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A gradient transformation of two kinds of parts, as `optax.chain(*clips, rule)`.

    Attributes:
      clips: of gradients, by unit and by global norm; they remember nothing.
      rule: the optimiser.
    """

    clips: tuple[optax.GradientTransformation, ...]
    rule: optax.GradientTransformation

    def init(self, params: Any) -> tuple[Any, ...]:
        """The state: nothing for each clip, then the rule's."""
        return *(clip.init(params) for clip in self.clips), self.rule.init(params)

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, tuple[Any, ...]]:
        """(updates, state) of all arrays at once."""
        updates, moved = self.rule.update(self.clipped(grads, params), state[-1], params)
        return updates, (*state[:-1], moved)

    def clipped(self, grads: Any, params: Any) -> Any:
        """The gradients after all clips."""
        for clip in self.clips:
            grads, _ = clip.update(grads, clip.init(params), params)
        return grads


def make_optimizer(config: Optim, schedule: optax.Schedule) -> Optimizer:
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
    clips: list[optax.GradientTransformation] = []
    if config.adaptive_clip is not None:
        clips.append(adaptive_clip(config.adaptive_clip))
    if config.clip_norm is not None:
        clips.append(optax.clip_by_global_norm(config.clip_norm))
    return Optimizer(tuple(clips), builders[config.name]())


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
