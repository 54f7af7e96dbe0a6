"""Cross-field rules of the networks: sizes, heads and probabilities that do not go together."""

from collections.abc import Callable

from unclip_jax.config.schema import (
    ClipModel,
    DecoderModel,
    PriorModel,
    RunConfig,
    UpsamplerModel,
)


def _clip_patches(c: RunConfig) -> str | None:
    m = c.model
    if isinstance(m, ClipModel) and m.image_size % m.patch_size:
        return (
            f"config.model.image_size={m.image_size} is not a multiple of "
            f"config.model.patch_size={m.patch_size}"
        )
    return None


def _heads(c: RunConfig) -> str | None:
    m = c.model
    pairs: list[tuple[str, int, str, int]] = []
    if isinstance(m, ClipModel):
        pairs = [
            ("vision_width", m.vision_width, "vision_heads", m.vision_heads),
            ("text_width", m.text_width, "text_heads", m.text_heads),
        ]
    elif isinstance(m, PriorModel):
        pairs = [("width", m.width, "heads", m.heads)]
    for wide, width, many, heads in pairs:
        if width % heads:
            return f"config.model.{wide}={width} is not a multiple of config.model.{many}={heads}"
    return None


def _tensor_parallel(c: RunConfig) -> str | None:
    m, parts = c.model, c.mesh.tensor
    if parts < 2:
        return None
    pieces: dict[str, int] = {}
    if isinstance(m, ClipModel):
        pieces = {"vision_heads": m.vision_heads, "text_heads": m.text_heads}
    elif isinstance(m, PriorModel):
        pieces = {"heads": m.heads}
    else:
        pieces = {"norm_groups": m.norm_groups}
    if isinstance(m, DecoderModel):
        for level, factor in enumerate(m.multipliers):
            if m.resolutions[level] in m.attention_resolutions:
                heads = factor * m.channels // m.head_channels
                pieces[f"channels={m.channels}, attention heads of level {level}"] = heads
    if isinstance(m, PriorModel | DecoderModel) and m.text_encoder == "trained":
        pieces["text_heads"] = m.text_heads
    for name, count in pieces.items():
        if count % parts:
            return f"config.mesh.tensor={parts} does not divide config.model.{name}: {count}"
    return None


def _pyramid(c: RunConfig) -> str | None:
    m = c.model
    if isinstance(m, DecoderModel | UpsamplerModel):
        halvings = len(m.multipliers) - 1
        if m.image_size % (m.space_to_depth * 2**halvings):
            stem = f" after config.model.space_to_depth={m.space_to_depth}"
            return (
                f"config.model.image_size={m.image_size} can't be halved {halvings} times as "
                f"config.model.multipliers={m.multipliers} asks{stem * (m.space_to_depth != 1)}"
            )
    return None


def _attention_resolutions(c: RunConfig) -> str | None:
    m = c.model
    if isinstance(m, DecoderModel):
        for resolution in m.attention_resolutions:
            if resolution not in m.resolutions:
                return (
                    f"config.model.attention_resolutions: {resolution} is not among the "
                    f"resolutions {list(m.resolutions)} of config.model.image_size={m.image_size}"
                )
    return None


def _upsampler_sizes(c: RunConfig) -> str | None:
    m = c.model
    if not isinstance(m, UpsamplerModel):
        return None
    if m.image_size <= m.low_size or m.image_size % m.low_size:
        return (
            f"config.model.image_size={m.image_size} must be a multiple of "
            f"config.model.low_size={m.low_size}, and larger"
        )
    crop = m.crop_fraction * m.image_size
    step = max(m.image_size // m.low_size, 2 ** (len(m.multipliers) - 1) * m.space_to_depth)
    if not 0 < m.crop_fraction <= 1 or crop % step:
        return (
            f"config.model.crop_fraction={m.crop_fraction} gives crops of {crop:g} px, which "
            f"config.model.image_size={m.image_size} and multipliers={m.multipliers} need to be a "
            f"multiple of {step}"
        )
    return None


def _noise_augmentation(c: RunConfig) -> str | None:
    most = getattr(c.model, "noise_augmentation", 0.0)
    if not 0 <= most < 1:
        return f"config.model.noise_augmentation: must be in [0, 1), got {most}"
    if not 0 <= c.sampling.low_noise <= most:
        return (
            f"config.sampling.low_noise={c.sampling.low_noise} must be between 0 and "
            f"config.model.noise_augmentation={most}: the network knows no other levels"
        )
    return None


def _probabilities(c: RunConfig) -> str | None:
    for name in ("drop_text", "drop_image", "drop_known", "blur_probability", "dropout"):
        value = getattr(c.model, name, 0.0)
        if not 0 <= value <= 1:
            return f"config.model.{name}: is a probability, got {value}"
    return None


def _learned_variance(c: RunConfig) -> str | None:
    if c.stage == "prior" and c.diffusion.learned_variance:
        return "config.diffusion.learned_variance=True: config.stage=prior has no variance output"
    return None


MODEL_RULES: tuple[Callable[[RunConfig], str | None], ...] = (
    _clip_patches,
    _heads,
    _tensor_parallel,
    _pyramid,
    _attention_resolutions,
    _upsampler_sizes,
    _noise_augmentation,
    _probabilities,
    _learned_variance,
)
