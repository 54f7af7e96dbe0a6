"""Guidance scale x sampler x steps of a trained bundle's decoder; nothing is trained.

Each trial draws pictures for held-out captions and measures them with `unclip eval`:
--given bundle=DIR --given data=DIR, the folder with val_style-*.tar.

full   5 scales x 3 samplers x 3 step counts
quick  2 x 2 x 1, of few captions
"""

from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.errors import UserError, did_you_mean

_VALUES: dict[str, dict[str, list]] = {
    "full": {
        "decoder.guidance_scale": [1.0, 2.0, 4.0, 6.0, 8.0],
        "decoder.sampler": ["ddim", "ddpm", "dpm++2m"],
        "decoder.steps": [10, 25, 50],
    },
    "quick": {
        "decoder.guidance_scale": [1.0, 3.0],
        "decoder.sampler": ["ddim", "dpm++2m"],
        "decoder.steps": [5],
    },
}
_LIMIT = {"full": "256", "quick": "16"}


def get_sweep(variant: str = "full") -> Sweep:
    if variant not in _VALUES:
        raise UserError(f"no variant {variant!r}{did_you_mean(variant, _VALUES)}")
    return Sweep(
        command=(
            *("unclip", "eval", "--bundle", "{bundle}", "--data", "{data}", "--out", "{out}"),
            *("--splits", "val_style", "--limit", _LIMIT[variant]),
        ),
        option=("--set", "{name}={value}"),
        trials=grid(_VALUES[variant]),
        objective=Objective(
            file="report.json", name="splits.val_style.fd_clip.value", goal="minimize"
        ),
    )
