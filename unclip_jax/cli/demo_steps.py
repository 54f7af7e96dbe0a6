"""The steps of `unclip demo`, as the commands that a user would type."""

import dataclasses
import pathlib

SPLITS = ("train", "val_style", "val_concept")

# Shares of the training time, chosen by what the pictures gain from more of it.
SHARES = {"clip": 0.20, "prior": 0.12, "decoder": 0.45, "upsampler": 0.23}

PROMPTS = (
    "red apple, fluent 3d style",
    "red apple, noto style",
    "grinning face, fluent flat style",
    "grinning face, fluent 3d style",
    "blue heart, fluent color style",
    "flag: Japan, noto style",
    "cat face, fluent 3d style",
    "black square button, fluent flat style",
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One command; it is done once its `product` exists."""

    title: str
    arguments: tuple[str, ...]
    product: pathlib.Path


def steps(out: pathlib.Path, *, minutes: float, quick: bool) -> list[Step]:
    """All steps in order; paths are below `out`."""
    data, runs, bundle = out / "data", out / "runs", out / "bundle"
    return [
        _build_data(data, quick),
        _train("clip", out, minutes, quick),
        Step(
            "CLIP embeddings of all pictures",
            ("embed", "--clip", str(runs / "clip"), "--shards", *_patterns(data)),
            data / ".embedded",
        ),
        _train("prior", out, minutes, quick),
        _train("decoder", out, minutes, quick),
        _train("upsampler", out, minutes, quick),
        Step(
            "the bundle",
            ("export", "--workdir", *(str(runs / s) for s in SHARES), "--out", str(bundle)),
            bundle / "bundle.json",
        ),
        _sample(bundle, out / "samples", quick),
        _evaluate(bundle, data, out / "evaluation", quick),
    ]


def _build_data(data: pathlib.Path, quick: bool) -> Step:
    few = ("--limit", "250") if quick else ()
    return Step("the emoji set", ("data", "emoji", "--out", str(data), *few), data / "stats.json")


def _patterns(data: pathlib.Path) -> list[str]:
    return [str(data / f"{split}-*.tar") for split in SPLITS]


def _train(stage: str, out: pathlib.Path, minutes: float, quick: bool) -> Step:
    workdir, data = out / "runs" / stage, out / "data"
    settings = {
        "data.train": str(data / "train-*.tar"),
        "data.validation": str(data / "val_style-*.tar"),
        "train.time_limit_minutes": f"{minutes * SHARES[stage]:.4g}",
    }
    if stage in ("prior", "decoder"):
        settings |= {"clip.path": str(out / "runs" / "clip"), "data.embeddings": "stored"}
    if quick:  # the smallest networks, as many steps of them as the time allows
        settings |= {"train.duration": "300 epochs", "train.batch_size": "64"}
    variant = "tiny" if quick else "emoji"
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return Step(
        f"train the {stage}",
        ("train", "--config", f"{stage}:{variant}", "--workdir", str(workdir), *overrides),
        workdir / "done.json",
    )


def _sample(bundle: pathlib.Path, out: pathlib.Path, quick: bool) -> Step:
    prompts = [a for p in PROMPTS for a in ("--prompt", p)]
    count = "2" if quick else "6"
    return Step(
        "pictures from prompts",
        ("sample", "--bundle", str(bundle), *prompts, "--n", count, "--out", str(out)),
        out / "grid.png",
    )


def _evaluate(bundle: pathlib.Path, data: pathlib.Path, out: pathlib.Path, quick: bool) -> Step:
    limit = ("--limit", "16") if quick else ("--limit", "96")
    return Step(
        "evaluation",
        ("eval", "--bundle", str(bundle), "--data", str(data), *limit, "--out", str(out)),
        out / "report.md",
    )
