"""Learning rate x batch of the prior, by held-out loss.

emoji  the laptop's prior: 4 x 2 trials of 10 epochs
tiny   the smallest (tests)
search the same by TPE, with hopeless trials ended early by the median rule
"""

from typing import Any

from unclip_jax.config import choose
from unclip_jax.config.sweeps import Choice, Float, Objective, Pruning, Space, Sweep, grid

_LOSS = Objective(name="validation/loss")
_EPOCHS = {"train.duration": "10 epochs", "train.validate_every": "1 epoch"}


def get_sweep(variant: str = "emoji") -> Sweep:
    return choose(variant, {"emoji": _emoji, "tiny": _tiny, "search": _search})


def _emoji() -> Sweep:
    values: dict[str, list[Any]] = {
        "optim.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2],
        "train.batch_size": [64, 128],
    }
    return Sweep(config="prior:emoji", base=_EPOCHS, trials=grid(values), objective=_LOSS)


def _tiny() -> Sweep:
    return Sweep(
        config="prior:tiny",
        base={"train.duration": "4 steps", "train.validate_every": "2 steps"},
        trials=grid({"optim.learning_rate": [1e-3, 1e-2], "train.batch_size": [8, 16]}),
        objective=_LOSS,
    )


def _search() -> Sweep:
    space = Space(
        parameters={
            "optim.learning_rate": Float(1e-4, 1e-2, log=True),
            "optim.weight_decay": Float(1e-3, 1e-1, log=True),
            "train.batch_size": Choice((64, 128, 256)),
        },
        count=32,
        search="tpe",
    )
    pruning = Pruning(rule="median", after_trials=4)
    return Sweep(config="prior:emoji", base=_EPOCHS, space=space, objective=_LOSS, pruning=pruning)
