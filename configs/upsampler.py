"""Upsampler presets.

tiny            the smallest that has every part (tests)
emoji           16 -> 64 px, trains in minutes on two CPU cores; what `unclip demo` uses
emoji_128       64 -> 128 px after it, and
emoji_256       128 -> 256 px: the cascade of docs/editing.md
karlo           karlo-v1-alpha's 64 -> 256 px, with a second network for the last step
paper_256       64 -> 256 px of arXiv 2204.06125, table 3 (700 M)
paper_1024      256 -> 1024 px (300 M)
"""

import ml_collections

from unclip_jax.config import choose


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    return choose(
        variant,
        {
            "tiny": _tiny,
            "emoji": _emoji,
            "emoji_128": _emoji_128,
            "emoji_256": _emoji_256,
            "karlo": _karlo,
            "paper_256": _paper_256,
            "paper_1024": _paper_1024,
        },
    )


def _tiny() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "upsampler"
    config.model = {
        "low_size": 8,
        "image_size": 16,
        "channels": 16,
        "multipliers": (1, 2),
        "depth": 1,
        "norm_groups": 8,
        "crop_fraction": 0.5,
    }
    config.diffusion = {"schedule": "cosine", "prediction": "v"}
    config.sampling = {"sampler": "ddim", "steps": 10}
    config.data = {"train": "data/train-*.tar", "validation": "data/val_style-*.tar"}
    config.train = {"batch_size": 16, "duration": "100 steps"}
    config.optim = {"learning_rate": 1e-3, "warmup": "10 steps"}
    config.ema = {"decay": 0.99}
    return config


def _emoji() -> ml_collections.ConfigDict:
    config = _tiny()
    config.model = {
        "low_size": 16,
        "image_size": 64,
        "channels": 32,
        "multipliers": (1, 2, 4),
        "depth": 1,
        "norm_groups": 8,
        "crop_fraction": 0.25,
    }
    config.train = {
        "batch_size": 32,
        "duration": "300 epochs",
        "log_every": 20,
        "validate_every": "4 epochs",
        "checkpoint_every": "2 epochs",
        "preview": {"every": "4 epochs"},
    }
    config.optim = {"learning_rate": 1e-3, "warmup": "50 steps", "beta2": 0.99}
    config.ema = {"decay": 0.99}
    return config


def _emoji_128() -> ml_collections.ConfigDict:
    """The network of `emoji`, so that its weights are a start: --config.init.path=RUN."""
    config = _emoji()
    config.model.update(low_size=64, image_size=128)
    config.train.batch_size = 8  # of crops twice as large
    return config


def _emoji_256() -> ml_collections.ConfigDict:
    config = _emoji_128()
    config.model.update(low_size=128, image_size=256, crop_fraction=0.125)
    return config


def _large(schedule: str) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "upsampler"
    config.diffusion = {"schedule": schedule, "prediction": "epsilon"}
    config.data = {"train": "data/{00000..41454}.tar"}
    config.ema = {"decay": 0.9999}
    config.precision = {"compute": "bfloat16"}
    return config


def _paper_256() -> ml_collections.ConfigDict:
    config = _large("cosine")
    config.model = {
        "low_size": 64,
        "image_size": 256,
        "channels": 320,
        "multipliers": (1, 2, 3, 4),
        "depth": 3,
        "scale_shift": True,
        "dropout": 0.1,
    }
    config.sampling = {"sampler": "ddim", "steps": 27}
    config.train = {
        "batch_size": 1024,
        "duration": "1M steps",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {"learning_rate": 1.2e-4, "warmup": "1000 steps"}
    return config


def _karlo() -> ml_collections.ConfigDict:
    config = _paper_256()
    config.model.scale_shift = False
    config.model.dropout = 0.0
    config.model.last_step = "own"
    config.sampling = {"sampler": "ddpm", "steps": 7}
    return config


def _paper_1024() -> ml_collections.ConfigDict:
    config = _large("linear")
    config.model = {
        "low_size": 256,
        "image_size": 1024,
        "channels": 192,
        "multipliers": (1, 1, 2, 2, 4, 4),
        "depth": 2,
        "scale_shift": True,
        "corruption": "bsr",
    }
    config.sampling = {"sampler": "ddim", "steps": 15}
    config.train = {
        "batch_size": 512,
        "duration": "1M steps",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {"learning_rate": 1e-4, "warmup": "1000 steps"}
    return config
