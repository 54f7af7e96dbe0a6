"""How often the decoder's conditions are dropped in training: image embedding x text.

The training loss contains the dropping, so it can't be compared; each decoder is put into a bundle
with given stages and judged by its guided pictures of held-out captions:
--given clip=RUN --given prior=RUN --given data=DIR, runs being workdirs, such as demo/runs/clip.

emoji  3 x 3 rates around the paper's (0.1 and 0.5)
tiny   two rates of the smallest decoder (tests)
"""

from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.errors import UserError, did_you_mean

_VALUES: dict[str, dict[str, list]] = {
    "emoji": {"model.drop_image": [0.0, 0.1, 0.3], "model.drop_text": [0.1, 0.5, 0.9]},
    "tiny": {"model.drop_image": [0.0, 0.1]},
}
_DURATION = {"emoji": "30 epochs", "tiny": "4 steps"}
_LIMIT = {"emoji": "256", "tiny": "8"}


def get_sweep(variant: str = "emoji") -> Sweep:
    if variant not in _VALUES:
        raise UserError(f"no variant {variant!r}{did_you_mean(variant, _VALUES)}")
    return Sweep(
        config=f"decoder:{variant}",
        base={
            "clip.path": "{clip}",
            "data.train": "{data}/train-*.tar",
            "data.validation": "{data}/val_style-*.tar",
            "train.duration": _DURATION[variant],
        },
        after=(
            (
                "unclip",
                "export",
                "--workdir",
                "{clip}",
                "{prior}",
                "{out}",
                "--out",
                "{out}/bundle",
            ),
            (
                *("unclip", "eval", "--bundle", "{out}/bundle", "--data", "{data}"),
                *("--guidance-scale", "3", "--splits", "val_style", "--limit", _LIMIT[variant]),
                *("--out", "{out}/evaluation"),
            ),
        ),
        trials=grid(_VALUES[variant]),
        objective=Objective(
            file="evaluation/report.json",
            name="splits.val_style.fd_clip.value",
            goal="minimize",
        ),
    )
