"""Diffusion prior presets.

tiny   the smallest that has every part (tests)
emoji  trains in minutes on two CPU cores; what `unclip demo` uses
karlo  karlo-v1-alpha's 1.02 B transformer on ViT-L/14
paper  the 1 B prior of arXiv 2204.06125, table 3, with its own text encoder
"""

import ml_collections

from unclip_jax.config import choose


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    return choose(variant, {"tiny": _tiny, "emoji": _emoji, "karlo": _karlo, "paper": _paper})


def _tiny() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "prior"
    config.model = {
        "width": 32,
        "layers": 2,
        "heads": 2,
        "embedding_scale": "whiten",
    }
    config.clip = {"path": "runs/clip"}
    config.diffusion = {"schedule": "cosine", "prediction": "x0"}
    config.sampling = {"sampler": "ddpm", "steps": 25, "clip_range": 5.0, "candidates": 2}
    config.data = {"train": "data/train-*.tar", "validation": "data/val_style-*.tar"}
    config.train = {"batch_size": 16, "duration": "100 steps"}
    config.optim = {"learning_rate": 1e-3, "warmup": "10 steps"}
    config.ema = {"decay": 0.99}
    return config


def _emoji() -> ml_collections.ConfigDict:
    config = _tiny()
    config.model = {
        "width": 128,
        "layers": 4,
        "heads": 2,
        "embedding_scale": "whiten",
    }
    config.data.embeddings = "stored"
    config.train = {
        "batch_size": 128,
        "duration": "300 epochs",
        "log_every": 10,
        "validate_every": "2 epochs",
        "checkpoint_every": "2 epochs",
    }
    config.optim = {
        "learning_rate": 1e-3,
        "warmup": "20 steps",
        "weight_decay": 6e-2,
        "beta2": 0.96,
        "eps": 1e-6,
    }
    config.ema = {"decay": 0.99}
    return config


def _large() -> ml_collections.ConfigDict:
    """Optimiser and batch of the paper's table 3, which karlo does not publish its own of."""
    config = ml_collections.ConfigDict()
    config.stage = "prior"
    config.clip = {"path": "runs/clip"}
    config.diffusion = {"schedule": "cosine", "prediction": "x0"}
    config.data = {"train": "data/{00000..41454}.tar", "embeddings": "stored"}
    config.train = {
        "batch_size": 4096,
        "duration": "600k steps",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {
        "learning_rate": 1.1e-4,
        "warmup": "1000 steps",
        "weight_decay": 6e-2,
        "beta2": 0.96,
        "eps": 1e-6,
    }
    config.ema = {"decay": 0.9999}
    config.precision = {"compute": "bfloat16"}
    config.mesh = {"fsdp": -1, "data": 1}
    return config


def _karlo() -> ml_collections.ConfigDict:
    config = _large()
    config.model = {
        "width": 2048,
        "layers": 20,
        "heads": 32,
        "drop_text": 0.2,
        "null_text": "empty",
        "embedding_scale": "whiten",
        "remat": "full",
    }
    config.sampling = {
        "sampler": "ddpm",
        "steps": 25,
        "guidance_scale": 4.0,
        "clip_range": 10.0,
    }
    return config


def _paper() -> ml_collections.ConfigDict:
    config = _large()
    config.model = {
        "width": 2048,
        "layers": 24,
        "heads": 32,
        "text_encoder": "trained",
        "text_width": 2048,
        "text_layers": 24,
        "text_heads": 32,
        "context_length": 256,
        "drop_text": 0.1,
        "embedding_scale": "paper",
        "remat": "full",
    }
    config.sampling = {"sampler": "ddpm", "steps": 64, "clip_range": None, "candidates": 2}
    return config
