"""Decoder presets.

tiny      the smallest that has every part (tests)
emoji     16 px, trains in minutes on two CPU cores; what `unclip demo` uses
emoji_64  64 px, with blocks of 4 x 4 px folded into channels
karlo     karlo-v1-alpha's 64 px decoder on ViT-L/14
paper     the 3.5 B decoder of arXiv 2204.06125, table 3: 2.2 B U-Net and 1.3 B text encoder
"""

import ml_collections

from unclip_jax.config import choose


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    return choose(
        variant,
        {
            "tiny": _tiny,
            "emoji": _emoji,
            "emoji_64": _emoji_64,
            "karlo": _karlo,
            "paper": _paper,
        },
    )


def _tiny() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "decoder"
    config.model = {
        "image_size": 8,
        "channels": 16,
        "multipliers": (1, 2),
        "depth": 1,
        "attention_resolutions": (4,),
        "head_channels": 16,
        "norm_groups": 8,
        "context_width": 32,
    }
    config.clip = {"path": "runs/clip"}
    config.diffusion = {"schedule": "cosine", "prediction": "v"}
    config.sampling = {"sampler": "ddim", "steps": 20, "guidance_scale": 2.0}
    config.data = {"train": "data/train-*.tar", "validation": "data/val_style-*.tar"}
    config.train = {"batch_size": 16, "duration": "100 steps"}
    config.optim = {"learning_rate": 1e-3, "warmup": "10 steps"}
    config.ema = {"decay": 0.99}
    return config


def _emoji() -> ml_collections.ConfigDict:
    config = _tiny()
    config.model = {
        "image_size": 16,
        "channels": 32,
        "multipliers": (1, 2, 4),
        "depth": 1,
        "attention_resolutions": (4,),
        "head_channels": 32,
        "norm_groups": 8,
        "context_width": 128,
    }
    config.sampling = {"sampler": "ddim", "steps": 25, "guidance_scale": 2.0}
    config.data.embeddings = "stored"
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


def _emoji_64() -> ml_collections.ConfigDict:
    """Levels of 16, 8 and 4 px after the stem, four times the work of `emoji`.

    It predicts the picture: to tell the noise, all 48 numbers of a block would have to pass through
    the 64 channels of every level, and short runs draw specks.
    """
    config = _emoji()
    config.model.update(image_size=64, space_to_depth=4, channels=64)
    config.model.attention_resolutions = (8, 4)
    config.diffusion.prediction = "x0"
    config.train.batch_size = 16
    config.optim.learning_rate = 5e-4
    return config


def _large() -> ml_collections.ConfigDict:
    """Diffusion and optimiser of the paper's table 3; karlo trains on the same process."""
    config = ml_collections.ConfigDict()
    config.stage = "decoder"
    config.clip = {"path": "runs/clip"}
    config.diffusion = {"schedule": "cosine", "prediction": "epsilon", "learned_variance": True}
    config.data = {"train": "data/{00000..41454}.tar", "embeddings": "stored"}
    config.train = {
        "batch_size": 2048,
        "duration": "800k steps",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {"learning_rate": 1.2e-4, "warmup": "1000 steps"}
    config.ema = {"decay": 0.9999}
    config.precision = {"compute": "bfloat16"}
    config.mesh = {"fsdp": -1, "data": 1}
    return config


def _karlo() -> ml_collections.ConfigDict:
    config = _large()
    config.model = {
        "image_size": 64,
        "channels": 320,
        "multipliers": (1, 2, 3, 4),
        "depth": 3,
        "attention_resolutions": (32, 16, 8),
        "context_width": 1536,
        "dropout": 0.1,
        "drop_text": 0.3,
        "null_text": "empty",
        "embedding_scale": "raw",
    }
    config.sampling = {"sampler": "ddpm", "steps": 25, "guidance_scale": 8.0}
    return config


def _paper() -> ml_collections.ConfigDict:
    config = _large()
    config.model = {
        "image_size": 64,
        "channels": 512,
        "multipliers": (1, 2, 3, 4),
        "depth": 3,
        "attention_resolutions": (32, 16, 8),
        "text_encoder": "trained",
        "text_width": 2048,
        "text_layers": 24,
        "text_heads": 32,
        "context_length": 256,
        "dropout": 0.1,
        "remat": "full",
    }
    config.sampling = {"sampler": "ddpm", "steps": 250, "guidance_scale": 1.25}
    return config
