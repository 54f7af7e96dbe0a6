"""Cross-field rules: settings that are each valid and together are not.

Each rule is one function and one message that names both settings; those of the networks stand in
`model_checks.py`.
"""

from collections.abc import Callable

from unclip_jax.config.duration import parse_duration
from unclip_jax.config.model_checks import MODEL_RULES
from unclip_jax.config.schema import RunConfig
from unclip_jax.errors import UserError


def check(config: RunConfig) -> None:
    """Raises `UserError` for the first rule that the config breaks."""
    for rule in RULES:
        message = rule(config)
        if message:
            raise UserError(message)


ELEMENTWISE = ("adamw", "lion")  # optimisers that treat every number by itself
MAX_POWER_LENGTH = 0.28  # of an average over all of a run alike: 1/sqrt(12)

_POSITIVE_FAULTS = (
    *("join_seconds", "heartbeat_seconds", "start_minutes", "stall_minutes"),
    *("max_skipped", "skip_window"),
)


def _positive(c: RunConfig) -> str | None:
    for name, value in (
        ("model.space_to_depth", getattr(c.model, "space_to_depth", 1)),
        ("train.batch_size", c.train.batch_size),
        ("train.log_every", c.train.log_every),
        ("train.accumulate", c.train.accumulate),
        ("train.profile.first_step", _or_one(c.train.profile.first_step)),
        ("train.profile.steps", c.train.profile.steps),
        ("diffusion.num_steps", c.diffusion.num_steps),
        ("sampling.steps", c.sampling.steps),
        ("sampling.candidates", c.sampling.candidates),
        ("optim.learning_rate", c.optim.learning_rate),
        ("train.keep_checkpoints", c.train.keep_checkpoints),
        ("train.checkpoint_minutes", c.train.checkpoint_minutes),
        *((f"faults.{name}", getattr(c.faults, name)) for name in _POSITIVE_FAULTS),
    ):
        if value is not None and value <= 0:
            return f"config.{name}: must be positive, got {value}"
    return None


def _training_data(c: RunConfig) -> str | None:
    if (c.data.train is None) == (not c.data.mixture):
        return "config.data: give either train (one data set) or mixture (several, with weights)"
    if c.data.mixture and c.data.where:
        return "config.data.where is of config.data.train; filter a part with mixture.NAME.where"
    layout = (c.data.lanes, c.data.chunk, c.data.window)
    if layout == (None, None, None):
        return None
    if None in layout:
        return f"config.data: give lanes, chunk and window together, or none of them; got {layout}"
    if any(v is not None and v < least for v, least in zip(layout, (1, 1, 0), strict=True)):
        return f"config.data: lanes and chunk start at 1, window at 0; got {layout}"
    if c.data.lanes and c.train.batch_size % c.data.lanes:
        return (
            f"config.train.batch_size={c.train.batch_size} is not a multiple of "
            f"config.data.lanes={c.data.lanes}"
        )
    return None


def _or_one(value: int | None) -> int:
    return 1 if value is None else value


def _durations(c: RunConfig) -> str | None:
    for name, text in (
        ("train.duration", c.train.duration),
        ("train.checkpoint_every", c.train.checkpoint_every),
        ("train.validate_every", c.train.validate_every),
        ("train.preview.every", c.train.preview.every),
        ("optim.warmup", c.optim.warmup),
        ("ema.start", c.ema.start),
        ("train.keep_every", c.train.keep_every),
    ):
        if text is not None:
            parse_duration(text, f"config.{name}")
    return None


def _sampling_steps(c: RunConfig) -> str | None:
    if c.stage != "clip" and c.sampling.steps > c.diffusion.num_steps:
        return (
            f"config.sampling.steps={c.sampling.steps} exceeds "
            f"config.diffusion.num_steps={c.diffusion.num_steps}"
        )
    return None


def _sampling_ranges(c: RunConfig) -> str | None:
    s = c.sampling
    ends = s.guidance_interval
    if ends is not None and (len(ends) != 2 or ends[0] > ends[1]):
        return (
            f"config.sampling.guidance_interval={ends}: give the first and the last timestep, as "
            "in 100,900"
        )
    for name, value in (
        ("guidance_rescale", s.guidance_rescale),
        ("threshold_quantile", s.threshold_quantile),
    ):
        if not 0 <= value <= 1:
            return f"config.sampling.{name}: must be from 0 to 1, got {value}"
    if s.variance == "learned_range" and not c.diffusion.learned_variance:
        return (
            "config.sampling.variance=learned_range needs a network that was trained with "
            "config.diffusion.learned_variance=True"
        )
    if s.sampler == "analytic_dpm" and not s.moments and c.stage in ("decoder", "upsampler"):
        return (
            "config.sampling.sampler=analytic_dpm needs moments of a trained network, so it can't "
            "draw the pictures of a training run: choose it later, see `unclip moments`"
        )
    return None


def _noise_schedule(c: RunConfig) -> str | None:
    d = c.diffusion
    if d.zero_terminal_snr and d.prediction == "epsilon":
        return (
            "config.diffusion.zero_terminal_snr=True: epsilon says nothing about x_0 in pure "
            "noise, so config.diffusion.prediction must be x0 or v"
        )
    if d.reference_size is not None and c.stage not in ("decoder", "upsampler"):
        return f"config.diffusion.reference_size: config.stage={c.stage} has no picture size"
    if d.reference_size is not None and d.reference_size <= 0:
        return f"config.diffusion.reference_size: must be positive, got {d.reference_size}"
    return None


def _accumulation(c: RunConfig) -> str | None:
    if c.train.batch_size % c.train.accumulate:
        return (
            f"config.train.batch_size={c.train.batch_size} does not divide into "
            f"config.train.accumulate={c.train.accumulate} parts"
        )
    return None


def _frozen_clip(c: RunConfig) -> str | None:
    if c.stage in ("prior", "decoder") and not c.clip.path:
        return (
            f"config.stage={c.stage} needs config.clip.path: the workdir or bundle of the CLIP "
            "whose embeddings it learns"
        )
    return None


def _lora(c: RunConfig) -> str | None:
    if c.lora.rank < 0:
        return f"config.lora.rank: must not be negative, got {c.lora.rank}"
    if c.lora.rank and (c.init.path is None or c.init.only):
        return (
            "config.lora.rank is set: adapters need the whole network of config.init.path, and no "
            "config.init.only"
        )
    return None


def _moments(c: RunConfig) -> str | None:
    if c.mesh.moments == "host" and c.optim.name not in ELEMENTWISE:
        return (
            f"config.mesh.moments=host: moments are updated in slices, which config.optim.name="
            f"{c.optim.name} can't be; {' and '.join(ELEMENTWISE)} can"
        )
    return None


def _averages(c: RunConfig) -> str | None:
    e = c.ema
    for decay in (e.decay, *e.others):
        if not 0 <= decay < 1:
            return f"config.ema: a decay is from 0 to 1, and less than 1; got {decay}"
    if len({e.decay, *e.others}) <= len(e.others):
        return f"config.ema.others={e.others}: names a decay twice, or config.ema.decay={e.decay}"
    if len(e.power) == 1 or len(set(e.power)) < len(e.power):
        return f"config.ema.power={e.power}: give two different lengths, such as (0.05, 0.1)"
    if not all(0 < sigma < MAX_POWER_LENGTH for sigma in e.power):
        return f"config.ema.power={e.power}: lengths are between 0 and {MAX_POWER_LENGTH}"
    return None


def _init(c: RunConfig) -> str | None:
    if c.init.restore and c.init.path:
        return (
            "config.init.restore and config.init.path are both given: continue that run, or begin "
            "with these parameters"
        )
    if c.init.only and not c.init.path:
        return "config.init.only is given without config.init.path, whose sub-trees it names"
    return None


RULES: tuple[Callable[[RunConfig], str | None], ...] = (
    _positive,
    _training_data,
    _durations,
    _sampling_steps,
    _sampling_ranges,
    _noise_schedule,
    _accumulation,
    _frozen_clip,
    _moments,
    _averages,
    _init,
    _lora,
    *MODEL_RULES,
)
