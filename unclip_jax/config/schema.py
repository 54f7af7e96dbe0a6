"""What a run is: frozen dataclasses, the one place where a setting and its default are declared
(those of the data and of diffusion stand in files of their own beside this one).

A config file states only what differs from these defaults; `unclip inspect config` prints all.
Nothing here computes: `load.py` reads files and overrides, `checks.py` holds the cross-field rules.
A field without a default has no honest one and must be given.
"""

from dataclasses import dataclass, field
from typing import Literal

from unclip_jax.config.data_settings import Data
from unclip_jax.config.diffusion_settings import Diffusion, Sampling

StageName = Literal["clip", "prior", "decoder", "upsampler"]
Activation = Literal["gelu", "quick_gelu"]
NullText = Literal["learned", "empty"]  # what stands for a dropped caption; "empty": the caption ""
WriterName = Literal["console", "tensorboard", "wandb", "mlflow"]
EmbeddingScaleName = Literal["raw", "unit", "paper", "sqrt_dim", "whiten"]


@dataclass(frozen=True, kw_only=True)
class ClipModel:
    """CLIP's two towers and its contrastive loss."""

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embedding_dim: int
    vision_mlp_dim: int | None = None  # None: four times the width
    text_mlp_dim: int | None = None
    context_length: int = 77
    activation: Activation = "gelu"
    scan_layers: bool = False
    remat: str = "none"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    ring_loss: bool = False  # devices pass embeddings on; none holds all pairs' logits
    towers: Literal["both", "text"] = "both"  # "text": imported without its image tower


@dataclass(frozen=True, kw_only=True)
class PriorModel:
    """The diffusion prior: a causal transformer that predicts the clean image embedding."""

    width: int
    layers: int
    heads: int
    text_encoder: Literal["clip", "trained"] = "clip"
    text_width: int = 2048  # of the trained text encoder; unused with "clip"
    text_layers: int = 24
    text_heads: int = 32
    context_length: int = 77  # of the trained text encoder; CLIP's own with "clip"
    scan_layers: bool = True
    remat: str = "none"
    drop_text: float = 0.1  # the paper's rate
    null_text: NullText = "learned"
    embedding_scale: EmbeddingScaleName = "paper"


@dataclass(frozen=True, kw_only=True)
class DecoderModel:
    """The ADM U-Net conditioned on the CLIP image embedding and on text."""

    image_size: int
    channels: int
    multipliers: tuple[int, ...]
    depth: int
    attention_resolutions: tuple[int, ...]
    head_channels: int = 64
    norm_groups: int = 32
    context_width: int = 1536
    image_tokens: int = 4
    space_to_depth: int = 1
    dropout: float = 0.0
    text_encoder: Literal["clip", "trained", "none"] = "clip"
    text_width: int = 2048
    text_layers: int = 24
    text_heads: int = 32
    context_length: int = 77
    remat: str = "none"
    drop_image: float = 0.1  # the paper's rates; dropped independently
    drop_text: float = 0.5
    null_text: NullText = "learned"
    embedding_scale: EmbeddingScaleName = "sqrt_dim"
    inpainting: bool = False  # four more input channels: the known part of the picture, its mask
    drop_known: float = 0.25  # with `inpainting`: how often nothing is known, as without it

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The size of the map at each level."""
        stem = self.image_size // self.space_to_depth
        return tuple(stem >> level for level in range(len(self.multipliers)))


@dataclass(frozen=True, kw_only=True)
class UpsamplerModel:
    """A U-Net without attention or text that sharpens `low_size` pictures to `image_size`."""

    low_size: int
    image_size: int
    channels: int
    multipliers: tuple[int, ...]
    depth: int
    norm_groups: int = 32
    architecture: Literal["adm", "efficient"] = "adm"
    dropout: float = 0.0
    scale_shift: bool = False
    space_to_depth: int = 1
    remat: str = "none"
    crop_fraction: float = 0.25  # side of the training crop / image_size
    corruption: Literal["none", "blur", "bsr"] = "blur"  # of the small picture in training
    blur_probability: float = 0.5
    blur_sigma: float = 0.6
    noise_augmentation: float = 0.0  # largest part of the forward process put on it; 0 is none
    last_step: Literal["shared", "own"] = "shared"  # "own": a second network draws it (karlo)


ModelConfig = ClipModel | PriorModel | DecoderModel | UpsamplerModel

MODEL_OF_STAGE: dict[str, type] = {
    "clip": ClipModel,
    "prior": PriorModel,
    "decoder": DecoderModel,
    "upsampler": UpsamplerModel,
}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frozen CLIP that a prior or decoder is trained against: a run's workdir or a bundle."""

    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimiser and its learning-rate schedule. Durations as in `train.duration`."""

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine", "linear", "rsqrt"] = "constant"
    warmup: str = "100 steps"
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = 1.0
    adaptive_clip: float | None = None  # AGC: longest gradient of a unit / norm of its weights


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Moving averages of the weights, n steps after their start.

    With warm-up a decay is min(decay, (1 + n) / (10 + n)); before its start an average follows the
    weights. `decay` is that of validation and pictures; `others` and `power` are kept for export,
    each at the price of one more copy of the weights. See docs/training.md.
    """

    decay: float = 0.9999
    others: tuple[float, ...] = ()  # decays of further averages: (0.999, 0.99)
    power: tuple[float, ...] = ()  # lengths / run of averages for post-hoc EMA: (0.05, 0.1)
    warmup: bool = True
    start: str = "0 steps"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Pictures drawn during training for the first validation examples, always with one seed.

    The decoder also draws `prompts` from their text alone, its image embedding dropped.
    """

    examples: int = 8
    prompts: tuple[str, ...] = ()
    every: str = "1000 steps"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A trace of `steps` steps from step number `first_step`, in the workdir; None takes none.

    Steps count from the run's beginning; the first of a start are its compilation.
    """

    first_step: int | None = None
    steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Train:
    """The loop. A duration is '500 steps', '3 epochs' or '1.5M examples'."""

    batch_size: int
    duration: str
    accumulate: int = 1  # parts of a batch, computed one after the other; no result changes
    # Complete after so much training time of all its starts, as if `duration` were over.
    time_limit_minutes: float | None = None
    log_every: int = 50
    checkpoint_every: str = "1000 steps"
    checkpoint_minutes: float | None = None  # also save when the last save is so long ago
    keep_checkpoints: int = 3  # the newest ones
    keep_every: str | None = None  # beside these keep one of each so many steps for good
    validate_every: str = "1000 steps"
    validation_batches: int = 16
    preview: Preview = field(default_factory=Preview)
    writers: tuple[WriterName, ...] = ("tensorboard",)  # beside metrics.jsonl
    profile: Profile = field(default_factory=Profile)


@dataclass(frozen=True, kw_only=True)
class Init:
    """Where a new run begins. A run that has checkpoints of its own resumes and reads none of this.

    `restore` continues another run: state, moments, step and data position of its workdir. `path`
    takes parameters only, from a workdir or a bundle; with `only`, just the sub-trees whose paths
    begin so (e.g. 'text/'), and the rest is drawn afresh. What is taken must fit exactly.
    """

    restore: str | None = None
    path: str | None = None
    weights: str = "ema"  # which parameters of a workdir, as `unclip export --weights`
    only: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters, trained in the place of all parameters of `init.path`."""

    rank: int = 0  # 0 trains all parameters
    alpha: float | None = None  # adapters are scaled by alpha / rank; None is 1
    targets: tuple[str, ...] = ("attention", "qkv")  # layers whose path holds one of these


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is done about processes that fail to come, stop or diverge. See docs/surviving.md."""

    join_seconds: float = 300.0  # for all processes to come
    heartbeat_seconds: float = 100.0  # a process that is silent for so long ends all
    start_minutes: float = 60.0  # limit on start, compilation, an evaluation, a save
    stall_minutes: float = 15.0  # limit on one step and its data
    max_skipped: int = 10  # so many updates that are not finite …
    skip_window: int = 100  # … in so many steps: roll back and leave out their data
    max_rollbacks: int = 2  # then stop


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices along each axis; -1 takes what is left. See docs/sharding.md."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    slices: int = -1  # groups of devices that only `data` may cross; -1: as TPUs report
    fsdp_splits: Literal["everything", "optimizer"] = "everything"  # "optimizer": weights whole
    moments: Literal["device", "host"] = "device"  # where they are between updates
    min_size: int = 65536  # arrays of fewer elements stay whole over `fsdp`
    max_whole: float = 0.2  # more than this share of the state whole on every device is an error


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Parameters are float32; matrix products and convolutions run in `compute`."""

    compute: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run of one stage."""

    stage: StageName
    model: ModelConfig
    data: Data
    train: Train
    seed: int = 0
    clip: Clip = field(default_factory=Clip)
    diffusion: Diffusion = field(default_factory=Diffusion)
    sampling: Sampling = field(default_factory=Sampling)
    optim: Optim = field(default_factory=Optim)
    ema: Ema = field(default_factory=Ema)
    init: Init = field(default_factory=Init)
    lora: Lora = field(default_factory=Lora)
    faults: Faults = field(default_factory=Faults)
    mesh: Mesh = field(default_factory=Mesh)
    precision: Precision = field(default_factory=Precision)
