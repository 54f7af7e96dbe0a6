"""CLIP presets.

tiny   the smallest that has every part; seconds per hundred steps on a CPU (tests)
emoji  trains in minutes on two CPU cores; what `unclip demo` uses
vit_l14, vit_h16  OpenAI's ViT-L/14, and the ViT-H/16 at 256 px that the unCLIP paper trained
"""

import ml_collections

from unclip_jax.config import choose


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    return choose(
        variant, {"tiny": _tiny, "emoji": _emoji, "vit_l14": _vit_l14, "vit_h16": _vit_h16}
    )


def _tiny() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.stage = "clip"
    config.model = {
        "image_size": 16,
        "patch_size": 4,
        "vision_width": 32,
        "vision_layers": 2,
        "vision_heads": 2,
        "text_width": 32,
        "text_layers": 2,
        "text_heads": 2,
        "embedding_dim": 16,
        "context_length": 16,
    }
    config.data = {"train": "data/train-*.tar", "validation": "data/val_style-*.tar"}
    config.train = {"batch_size": 16, "duration": "100 steps"}
    config.optim = {"learning_rate": 1e-3, "warmup": "10 steps"}
    config.ema = {"decay": 0.99}
    return config


def _emoji() -> ml_collections.ConfigDict:
    config = _tiny()
    config.model = {
        "image_size": 32,
        "patch_size": 8,
        "vision_width": 192,
        "vision_layers": 4,
        "vision_heads": 3,
        "text_width": 128,
        "text_layers": 3,
        "text_heads": 2,
        "embedding_dim": 128,
        "context_length": 20,
    }
    config.train = {
        "batch_size": 256,
        "duration": "100 epochs",
        "log_every": 10,
        "validate_every": "2 epochs",
        "checkpoint_every": "2 epochs",
    }
    config.optim = {
        "learning_rate": 1e-3,
        "warmup": "20 steps",
        "weight_decay": 0.1,
        "beta2": 0.98,
        "eps": 1e-6,
    }
    config.ema = {"decay": 0.98}
    return config


def _paper_training() -> ml_collections.ConfigDict:
    """Batch, epochs and optimiser of arXiv 2103.00020, table 18 and 19."""
    config = ml_collections.ConfigDict()
    config.stage = "clip"
    config.data = {"train": "data/{00000..41454}.tar"}
    config.train = {
        "batch_size": 32768,
        "duration": "32 epochs",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {
        "learning_rate": 4e-4,
        "schedule": "cosine",
        "warmup": "2000 steps",
        "weight_decay": 0.2,
        "beta2": 0.98,
        "eps": 1e-6,
    }
    config.precision = {"compute": "bfloat16"}
    return config


def _vit_l14() -> ml_collections.ConfigDict:
    config = _paper_training()
    config.model = {
        "image_size": 224,
        "patch_size": 14,
        "vision_width": 1024,
        "vision_layers": 24,
        "vision_heads": 16,
        "text_width": 768,
        "text_layers": 12,
        "text_heads": 12,
        "embedding_dim": 768,
        "activation": "quick_gelu",
    }
    return config


def _vit_h16() -> ml_collections.ConfigDict:
    config = _paper_training()
    config.model = {
        "image_size": 256,
        "patch_size": 16,
        "vision_width": 1280,
        "vision_layers": 32,
        "vision_heads": 16,
        "text_width": 1024,
        "text_layers": 24,
        "text_heads": 16,
        "embedding_dim": 1024,
    }
    config.optim.learning_rate = 3e-4
    return config
