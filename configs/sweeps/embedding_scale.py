"""How embeddings are scaled before the prior diffuses them.

Losses of different scales can't be compared, so each prior is put into a bundle with given stages
and judged by the cosine between drawn and true embeddings of held-out captions:
--given clip=RUN --given decoder=RUN --given data=DIR, runs being workdirs, such as demo/runs/clip.

emoji  five scales x two seeds, 20 epochs each
tiny   two scales of the smallest prior (tests)
"""

from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.errors import UserError, did_you_mean

_VALUES: dict[str, dict[str, list]] = {
    "emoji": {
        "model.embedding_scale": ["raw", "unit", "paper", "sqrt_dim", "whiten"],
        "seed": [0, 1],
    },
    "tiny": {"model.embedding_scale": ["unit", "whiten"]},
}
_DURATION = {"emoji": "20 epochs", "tiny": "10 steps"}
_LIMIT = {"emoji": "256", "tiny": "8"}


def get_sweep(variant: str = "emoji") -> Sweep:
    if variant not in _VALUES:
        raise UserError(f"no variant {variant!r}{did_you_mean(variant, _VALUES)}")
    return Sweep(
        config=f"prior:{variant}",
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
                "{out}",
                "{decoder}",
                "--out",
                "{out}/bundle",
            ),
            (
                *("unclip", "eval", "--bundle", "{out}/bundle", "--data", "{data}"),
                *("--splits", "val_style", "--limit", _LIMIT[variant], "--out", "{out}/evaluation"),
            ),
        ),
        trials=grid(_VALUES[variant]),
        objective=Objective(
            file="evaluation/prior/report.json",
            name="splits.val_style.sampled_cosine_to_image.value",
            goal="maximize",
        ),
    )
