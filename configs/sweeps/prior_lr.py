"""Learning rate x batch of the prior, by held-out loss.

emoji  the laptop's prior: 4 x 2 trials of 10 epochs
tiny   the smallest (tests)
search the same by TPE, with hopeless trials ended early by the median rule
"""

from unclip_jax.config.sweeps import Choice, Float, Objective, Pruning, Space, Sweep, grid
from unclip_jax.errors import UserError, did_you_mean

_LOSS = Objective(name="validation/loss", goal="minimize", take="last")


def get_sweep(variant: str = "emoji") -> Sweep:
    if variant == "emoji":
        return Sweep(
            config="prior:emoji",
            base={"train.duration": "10 epochs", "train.validate_every": "1 epoch"},
            trials=grid(
                {
                    "optim.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2],
                    "train.batch_size": [64, 128],
                }
            ),
            objective=_LOSS,
        )
    if variant == "tiny":
        return Sweep(
            config="prior:tiny",
            base={"train.duration": "4 steps", "train.validate_every": "2 steps"},
            trials=grid({"optim.learning_rate": [1e-3, 1e-2], "train.batch_size": [8, 16]}),
            objective=_LOSS,
        )
    if variant == "search":
        return Sweep(
            config="prior:emoji",
            base={"train.duration": "10 epochs", "train.validate_every": "1 epoch"},
            space=Space(
                parameters={
                    "optim.learning_rate": Float(1e-4, 1e-2, log=True),
                    "optim.weight_decay": Float(1e-3, 1e-1, log=True),
                    "train.batch_size": Choice((64, 128, 256)),
                },
                count=32,
                search="tpe",
            ),
            objective=_LOSS,
            pruning=Pruning(rule="median", after_trials=4),
        )
    raise UserError(f"no variant {variant!r}{did_you_mean(variant, ['emoji', 'tiny', 'search'])}")
