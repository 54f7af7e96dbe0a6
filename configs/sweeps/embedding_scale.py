"""How embeddings are scaled before the prior diffuses them.

Losses of different scales can't be compared, so each prior is put into a bundle with given stages
and judged by the cosine between drawn and true embeddings of held-out captions:
--given clip=RUN --given decoder=RUN --given data=DIR, runs being workdirs, such as demo/runs/clip.

emoji  five scales x two seeds, 20 epochs each
tiny   two scales of the smallest prior, for a few steps: everything works, little is learnt
"""

from typing import Any

from unclip_jax.config import choose
from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.configs.sweeps._in_bundle import judged_in_bundle


def get_sweep(variant: str = "emoji") -> Sweep:
    return choose(variant, {"emoji": _emoji, "tiny": _tiny})


def _emoji() -> Sweep:
    scales = ["raw", "unit", "paper", "sqrt_dim", "whiten"]
    values: dict[str, list[Any]] = {"model.embedding_scale": scales, "seed": [0, 1]}
    return _sweep("prior:emoji", values, duration="20 epochs", captions=256)


def _tiny() -> Sweep:
    values = {"model.embedding_scale": ["unit", "whiten"]}
    return _sweep("prior:tiny", values, duration="10 steps", captions=8)


def _sweep(config: str, values: dict[str, list[Any]], *, duration: str, captions: int) -> Sweep:
    return judged_in_bundle(
        config,
        grid(values),
        Objective(
            file="evaluation/prior/report.json",
            name="splits.val_style.sampled_cosine_to_image.value",
            goal="maximize",
        ),
        beside=("{clip}", "{decoder}"),
        duration=duration,
        captions=captions,
    )
