"""CLIP presets.

tiny   the smallest that has every part; seconds per hundred steps on a CPU (tests)
emoji  trains in minutes on two CPU cores; what `unclip demo` uses
karlo  the CLIP that karlo builds on: OpenAI's ViT-L/14, the same as vit_l14
paper  the CLIP of the unCLIP paper: ViT-H/16 at 256 px, the same as vit_h16

OpenAI's sizes: vit_b32, vit_b16, vit_l14, vit_l14_336. LAION's: vit_h14, vit_bigg14.
All of them train by one recipe, that of arXiv 2103.00020; `vit_h16` at the unCLIP paper's rate.
"""

from typing import Any

import ml_collections

from unclip_jax.config import choose


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    return choose(
        variant,
        {
            "tiny": _tiny,
            "emoji": _emoji,
            "karlo": _vit_l14,
            "paper": _vit_h16,
            "vit_b32": _vit_b32,
            "vit_b16": _vit_b16,
            "vit_l14": _vit_l14,
            "vit_l14_336": _vit_l14_336,
            "vit_h14": _vit_h14,
            "vit_h16": _vit_h16,
            "vit_bigg14": _vit_bigg14,
        },
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


def _published(
    image: tuple[int, int],
    vision: tuple[int, int, int],
    text: tuple[int, int, int],
    embedding_dim: int,
    **more: Any,
) -> ml_collections.ConfigDict:
    """A published size, from (picture, patch) and (width, layers, heads) of both towers.

    Batch, epochs and optimiser of arXiv 2103.00020, tables 18 and 19. The loss goes round the
    devices: none of them holds 32,768 x 32,768 logits.
    """
    config = ml_collections.ConfigDict()
    config.stage = "clip"
    config.model = {
        **dict(zip(("image_size", "patch_size"), image, strict=True)),
        **dict(zip(("vision_width", "vision_layers", "vision_heads"), vision, strict=True)),
        **dict(zip(("text_width", "text_layers", "text_heads"), text, strict=True)),
        "embedding_dim": embedding_dim,
        "scan_layers": True,
        "ring_loss": True,
        **more,
    }
    config.data = {"train": "data/{00000..41454}.tar"}
    config.train = {
        "batch_size": 32768,
        "duration": "32 epochs",
        "checkpoint_every": "1000 steps",
    }
    config.optim = {
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "warmup": "2000 steps",
        "weight_decay": 0.2,
        "beta2": 0.98,
        "eps": 1e-6,
    }
    config.precision = {"compute": "bfloat16"}
    return config


def _vit_b32() -> ml_collections.ConfigDict:
    return _published((224, 32), (768, 12, 12), (512, 12, 8), 512, activation="quick_gelu")


def _vit_b16() -> ml_collections.ConfigDict:
    return _published((224, 16), (768, 12, 12), (512, 12, 8), 512, activation="quick_gelu")


def _vit_l14(image_size: int = 224) -> ml_collections.ConfigDict:
    config = _published(
        (image_size, 14), (1024, 24, 16), (768, 12, 12), 768, activation="quick_gelu"
    )
    config.optim.learning_rate = 4e-4
    return config


def _vit_l14_336() -> ml_collections.ConfigDict:
    """The last epoch of OpenAI's, at a higher resolution (section 2.5)."""
    config = _vit_l14(336)
    config.train.duration = "1 epochs"
    config.optim.learning_rate = 2e-5
    return config


def _vit_h14() -> ml_collections.ConfigDict:
    return _published((224, 14), (1280, 32, 16), (1024, 24, 16), 1024, remat="full")


def _vit_h16() -> ml_collections.ConfigDict:
    config = _published((256, 16), (1280, 32, 16), (1024, 24, 16), 1024, remat="full")
    config.optim.learning_rate = 3e-4
    return config


def _vit_bigg14() -> ml_collections.ConfigDict:
    return _published(
        (224, 14), (1664, 48, 16), (1280, 32, 20), 1280, vision_mlp_dim=8192, remat="full"
    )
