"""Make something to use or publish of trained stages: a bundle, or a format of others.

--workdir takes runs and bundles, in any order; bundles count as all of their stages. --from puts
single stages in the place of those, such as a better decoder. Stages that were not trained for each
other are refused. The terms of the training data are copied if a LICENSES.md lies beside the
shards.

  bundle      for unclip_jax: sampling, evaluation, fine-tuning (the default)
  diffusers   a folder for diffusers' UnCLIPPipeline, or diffusers-variation for
              UnCLIPImageVariationPipeline
  stablehlo   programs that run with jax and numpy alone, on CPU, CUDA and TPU
  clip-huggingface, clip-openclip, clip-openai
              the CLIP alone, a folder for transformers, for open_clip or for OpenAI's own code

Example:
  unclip export --workdir runs/clip runs/prior runs/decoder runs/upsampler --out bundle
  unclip export --workdir bundle --from decoder=runs/better --out bundle-2 --dtype bfloat16
  unclip export --workdir bundle --format diffusers --out for-diffusers
"""

import argparse
import pathlib
from collections.abc import Iterable, Sequence

import jax

from unclip_jax.cli.trained import read_stages
from unclip_jax.config.schema import MODEL_OF_STAGE
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.generation import Cascade, TrainedStage, compose
from unclip_jax.interop import Extras, model_card, write_bundle
from unclip_jax.interop.tensor_files import BUNDLE_DTYPES, MAX_BYTES

FORMATS = (
    *("bundle", "diffusers", "diffusers-variation", "stablehlo"),
    *("clip-huggingface", "clip-openclip", "clip-openai"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add = parser.add_argument
    add("--workdir", nargs="+", default=[], type=pathlib.Path, metavar="RUN", help="runs' directories, or bundles, in any order")  # noqa: E501  # fmt: skip
    add("--from", nargs="+", default=[], dest="replacements", metavar="STAGE=RUN", help="take this stage from there")  # noqa: E501  # fmt: skip
    add("--out", required=True, type=pathlib.Path, metavar="DIR")
    add("--format", choices=FORMATS, default="bundle", help="(default: bundle)")
    add(
        "--weights", default="ema", metavar="WHICH",
        help="of runs: ema, the averaged ones (default); raw, those of the last step; ema:DECAY, "
        "of config.ema.others; sigma:LENGTH, made of those of config.ema.power",
    )  # fmt: skip
    add(
        "--dtype", choices=BUNDLE_DTYPES, default="float32",
        help="(default: float32); int8 for bundles, with a report of what it costs",
    )  # fmt: skip
    add("--max-file-gb", type=float, default=MAX_BYTES / 1e9, metavar="GB", help="larger weights are split (default: 5)")  # noqa: E501  # fmt: skip
    add("--license", metavar="ID", help="of the weights, such as apache-2.0")
    add("--samples", type=pathlib.Path, metavar="DIR", help="pictures for the model card")


def run(args: argparse.Namespace) -> int:
    """Writes what was asked for and says what is in it; exit code 0."""
    if args.format == "stablehlo":
        # Traced where no accelerator's own kernels are chosen; nothing here needs one.
        jax.config.update("jax_platforms", "cpu")
    found = [s for path in args.workdir for s in read_stages(path, args.weights)]
    found = replace_stages(found, args.replacements, args.weights)
    cascade = compose(found)
    limit = int(args.max_file_gb * 1e9)
    if args.format == "bundle":
        licenses = _data_licenses(args.workdir, found)
        extras = Extras(license=args.license, data_licenses=licenses, samples=args.samples)
        write_bundle(cascade, args.out, dtype=args.dtype, extras=extras, max_file_bytes=limit)
    elif args.format.startswith("clip"):
        from unclip_jax.interop.clip_folder import write_clip_folder

        clip = cascade.clip
        if clip is None:
            raise UserError(f"--format {args.format}: there is no CLIP among these stages")
        cascade = Cascade(clip=clip)
        name = args.format.removeprefix("clip-")
        dialect = {"openclip": "open_clip"}.get(name, name)
        write_clip_folder(clip, args.out, dialect, dtype=args.dtype, max_file_bytes=limit)
    elif args.format == "stablehlo":
        from unclip_jax.interop.stablehlo import write_stablehlo

        write_stablehlo(cascade, args.out)
    else:
        from unclip_jax.interop.diffusers import write_folder

        layout = "variation" if args.format.endswith("variation") else "text-to-image"
        write_folder(cascade, args.out, layout=layout, dtype=args.dtype, max_file_bytes=limit)
    print_stages(cascade, args.out, args.dtype)
    return 0


def print_stages(cascade: Cascade, out: pathlib.Path, dtype: str) -> None:
    """Says what was written."""
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    for name, stage in cascade.named().items():
        print(f"{name:14} {stage.parameter_count:>13,} parameters  step {stage.step:,}")
    print(f"{out}: {size / 1e6:,.1f} MB, {dtype}")


def replace_stages(
    found: Sequence[TrainedStage], replacements: Iterable[str], weights: str
) -> list[TrainedStage]:
    """The stages with those of `replacements` ("decoder=runs/better") in the place of others.

    Of several upsamplers the one that makes pictures of the same size is replaced.
    """
    stages = list(found)
    for text in replacements:
        kind, equals, path = text.partition("=")
        if not equals or kind not in MODEL_OF_STAGE:
            raise UserError(
                f"--from {text}: expected STAGE=RUN{did_you_mean(kind, MODEL_OF_STAGE)}"
            )
        source = pathlib.Path(path)
        fresh = [s for s in read_stages(source, weights) if s.config.stage == kind]
        if not fresh:
            raise UserError(f"--from {text}: {source} holds no {kind}")
        sizes = {_place(s) for s in fresh}
        stages = [s for s in stages if _place(s) not in sizes] + fresh
    return stages


def _place(stage: TrainedStage) -> tuple[str, int | None]:
    size = stage.model.image_size if stage.config.stage == "upsampler" else None
    return stage.config.stage, size


def _data_licenses(paths: Iterable[pathlib.Path], found: Iterable[TrainedStage]) -> str | None:
    """The terms beside the stages' training shards and in the bundles, each text once."""
    sets = [s.config.data for s in found]
    shards = [d.train for d in sets if d.train] + [
        p.shards for d in sets for p in d.mixture.values()
    ]
    beside = [pathlib.Path(name).parent / "LICENSES.md" for name in shards]
    files = [*beside, *(path / model_card.DATA_LICENSES for path in paths)]
    texts = dict.fromkeys(f.read_text(encoding="utf-8") for f in files if f.is_file())
    return "\n".join(texts) or None
