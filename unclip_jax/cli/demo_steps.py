"""The steps of `unclip demo`, as the commands that a user would type."""

import dataclasses
import pathlib

SPLITS = ("train", "val_style", "val_concept")

# Shares of the training time by run, chosen by what the pictures gain from more of it.
SHARES = {"clip": 0.20, "prior": 0.12, "decoder": 0.45, "upsampler": 0.23}
QUICK_SHARES = SHARES | {"decoder": 0.37, "upsampler": 0.16, "upsampler_32": 0.15}

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


def shares(quick: bool) -> dict[str, float]:
    """{run: its part of the training time}; the quick demo has a second upsampler."""
    return QUICK_SHARES if quick else SHARES


def steps(out: pathlib.Path, *, minutes: float, quick: bool) -> list[Step]:
    """All steps in order; paths are below `out`."""
    data, runs, bundle = out / "data", out / "runs", out / "bundle"
    train = {run: _train(run, out, minutes * share, quick) for run, share in shares(quick).items()}
    return [
        _build_data(data, quick),
        train["clip"],
        Step(
            "CLIP embeddings of all pictures",
            ("embed", "--clip", str(runs / "clip"), "--shards", *_patterns(data)),
            data / ".embedded",
        ),
        *(step for run, step in train.items() if run != "clip"),
        Step(
            "the bundle",
            ("export", "--workdir", *(str(runs / s) for s in train), "--out", str(bundle)),
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


def _train(run: str, out: pathlib.Path, minutes: float, quick: bool) -> Step:
    workdir, data, stage = out / "runs" / run, out / "data", run.partition("_")[0]
    settings = {
        "data.train": str(data / "train-*.tar"),
        "data.validation": str(data / "val_style-*.tar"),
        "train.time_limit_minutes": f"{minutes:.4g}",
    }
    if stage in ("prior", "decoder"):
        settings |= {"clip.path": str(out / "runs" / "clip"), "data.embeddings": "stored"}
    if quick:  # the smallest networks, as many steps of them as the time allows
        settings |= {"train.duration": "300 epochs", "train.batch_size": "64"}
    if run == "upsampler_32":
        settings |= {"model.low_size": "16", "model.image_size": "32"}
    variant = "tiny" if quick else "emoji"
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return Step(
        f"train the {run}",
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
