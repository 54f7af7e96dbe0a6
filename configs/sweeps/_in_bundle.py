"""What sweeps of a stage share whose trials can't be compared by their loss.

Each trial is trained, put into a bundle with stages that are given as workdirs, and judged there by
what `unclip eval` measures on held-out captions.
"""

from collections.abc import Sequence

from unclip_jax.config.sweeps import Objective, Overrides, Sweep

DATA = {"data.train": "{data}/train-*.tar", "data.validation": "{data}/val_style-*.tar"}


def evaluation(bundle: str, out: str, captions: int, *more: str) -> tuple[str, ...]:
    """The command that measures a bundle on that many held-out captions."""
    return (
        *("unclip", "eval", "--bundle", bundle, "--data", "{data}", "--out", out),
        *("--splits", "val_style", "--limit", str(captions), *more),
    )


def judged_in_bundle(
    config: str,
    trials: Sequence[Overrides],
    objective: Objective,
    *,
    beside: Sequence[str],
    duration: str,
    captions: int,
    evaluate: Sequence[str] = (),
) -> Sweep:
    """Trials of `config`, each in a bundle with the stages `beside` it, such as {clip}.

    Args:
      objective: a number of a report below the folder evaluation/.
      captions: how many the bundle is judged by.
      evaluate: further options of `unclip eval`.
    """
    return Sweep(
        config=config,
        base={"clip.path": "{clip}", **DATA, "train.duration": duration},
        after=(
            ("unclip", "export", "--workdir", "{out}", *beside, "--out", "{out}/bundle"),
            evaluation("{out}/bundle", "{out}/evaluation", captions, *evaluate),
        ),
        trials=trials,
        objective=objective,
    )
