"""Guidance scale x sampler x steps of a trained bundle's decoder; nothing is trained.

Each trial draws pictures for held-out captions and measures them with `unclip eval`:
--given bundle=DIR --given data=DIR, the folder with val_style-*.tar.

full   5 scales x 3 samplers x 3 step counts
quick  2 x 2 x 1, of few captions
"""

from typing import Any

from unclip_jax.config import choose
from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.configs.sweeps._in_bundle import evaluation


def get_sweep(variant: str = "full") -> Sweep:
    return choose(variant, {"full": _full, "quick": _quick})


def _full() -> Sweep:
    return _sweep([1.0, 2.0, 4.0, 6.0, 8.0], ["ddim", "ddpm", "dpm++2m"], [10, 25, 50], 256)


def _quick() -> Sweep:
    return _sweep([1.0, 3.0], ["ddim", "dpm++2m"], [5], 16)


def _sweep(scales: list[float], samplers: list[str], steps: list[int], captions: int) -> Sweep:
    values: dict[str, list[Any]] = {
        "decoder.guidance_scale": scales,
        "decoder.sampler": samplers,
        "decoder.steps": steps,
    }
    return Sweep(
        command=evaluation("{bundle}", "{out}", captions),
        option=("--set", "{name}={value}"),
        trials=grid(values),
        objective=Objective(file="report.json", name="splits.val_style.fd_clip.value"),
    )
