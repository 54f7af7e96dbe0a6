"""How often the decoder's conditions are dropped in training: image embedding x text.

The training loss contains the dropping, so it can't be compared; each decoder is put into a bundle
with given stages and judged by its guided pictures of held-out captions:
--given clip=RUN --given prior=RUN --given data=DIR, runs being workdirs, such as demo/runs/clip.

emoji  3 x 3 rates around the paper's (0.1 and 0.5)
tiny   two rates of the smallest decoder, for a few steps: everything works, nothing is learnt
"""

from unclip_jax.config import choose
from unclip_jax.config.sweeps import Objective, Sweep, grid
from unclip_jax.configs.sweeps._in_bundle import judged_in_bundle


def get_sweep(variant: str = "emoji") -> Sweep:
    return choose(variant, {"emoji": _emoji, "tiny": _tiny})


def _emoji() -> Sweep:
    rates = {"model.drop_image": [0.0, 0.1, 0.3], "model.drop_text": [0.1, 0.5, 0.9]}
    return _sweep("decoder:emoji", rates, duration="30 epochs", captions=256)


def _tiny() -> Sweep:
    rates = {"model.drop_image": [0.0, 0.1]}
    return _sweep("decoder:tiny", rates, duration="4 steps", captions=16)  # fewer have no fd_clip


def _sweep(config: str, rates: dict[str, list[float]], *, duration: str, captions: int) -> Sweep:
    return judged_in_bundle(
        config,
        grid(rates),
        Objective(file="evaluation/report.json", name="splits.val_style.fd_clip.value"),
        beside=("{clip}", "{prior}"),
        duration=duration,
        captions=captions,
        evaluate=("--guidance-scale", "3"),
    )
