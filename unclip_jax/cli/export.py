"""Make a bundle of trained stages: one folder to sample from, evaluate, build on and publish.

Takes the averaged weights of the newest checkpoint of each run. A bundle may stand in for a run, to
change its precision or to put a better stage into it. Stages that were not trained for each other
are refused. The terms of the training data are copied if a LICENSES.md lies beside the shards.

Example:
  unclip export --workdir runs/clip runs/prior runs/decoder runs/upsampler --out bundle
  unclip export --workdir bundle --out bundle-bf16 --dtype bfloat16
"""

import argparse
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.config import from_mapping, load_config
from unclip_jax.config.schema import ClipModel
from unclip_jax.core.hashing import weights_hash
from unclip_jax.errors import UserError
from unclip_jax.generation import TrainedStage, compose
from unclip_jax.interop import Extras, manifest, model_card, read_bundle, write_bundle
from unclip_jax.interop.tensor_files import DTYPES
from unclip_jax.training.restore import load_ema_params

PROVENANCE = ("started", "unclip_jax", "python", "packages", "machine", "git_revision", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--workdir", required=True, nargs="+", type=pathlib.Path, metavar="RUN",
        help="runs' directories, or bundles, in any order",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="BUNDLE")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: float32)")
    parser.add_argument("--license", metavar="ID", help="of the weights, such as apache-2.0")
    parser.add_argument(
        "--samples", type=pathlib.Path, metavar="DIR", help="pictures for the model card"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the bundle and says what is in it; exit code 0."""
    found = [stage for path in args.workdir for stage in read_stages(path)]
    cascade = compose(found)
    licenses = _data_licenses(args.workdir, found)
    extras = Extras(license=args.license, data_licenses=licenses, samples=args.samples)
    write_bundle(cascade, args.out, dtype=args.dtype, extras=extras)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    for name, stage in cascade.named().items():
        print(f"{name:14} {stage.parameter_count:>13,} parameters  step {stage.step:,}")
    print(f"{args.out}: {size / 1e6:,.1f} MB, {args.dtype}")
    return 0


def read_stages(path: pathlib.Path) -> list[TrainedStage]:
    """The stage of a run, or all stages of a bundle."""
    if (path / manifest.FILE).is_file():
        return list(read_bundle(path).cascade.named().values())
    return [read_run(path)]


def read_run(workdir: pathlib.Path) -> TrainedStage:
    """The averaged weights of a run's newest checkpoint, with what a bundle says about them.

    Raises:
      UserError: if it is no run's directory, or has no checkpoint.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is neither a run's directory nor a bundle: no config.json")
    config = load_config(str(workdir / "config.json"))
    frozen = _read_json(workdir / "frozen.json") if config.stage in ("prior", "decoder") else None
    init = stages.build(config, _clip_model(frozen)).init
    restored, step = load_ema_params(workdir, jax.eval_shape(init, jax.random.key(0)))
    params = jax.tree.map(np.asarray, restored)
    return TrainedStage(
        config=config,
        params=params,
        step=step,
        weights_sha256=weights_hash(params),
        source=str(workdir),
        clip_sha256=frozen["clip"]["sha256"] if frozen else None,
        statistics=_statistics(frozen),
        provenance=_provenance(workdir),
    )


def _clip_model(frozen: dict[str, Any] | None) -> ClipModel | None:
    if frozen is None:
        return None
    model = from_mapping(frozen["clip"]["config"]).model
    assert isinstance(model, ClipModel)
    return model


def _statistics(frozen: dict[str, Any] | None) -> dict[str, np.ndarray] | None:
    if not frozen or frozen["statistics"] is None:
        return None
    return {name: np.asarray(v, np.float32) for name, v in frozen["statistics"].items()}


def _provenance(workdir: pathlib.Path) -> dict[str, Any]:
    last = _read_json(workdir / "run.json")[-1]
    return {name: last[name] for name in PROVENANCE if name in last}


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a whole run") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is altered or cut short: {error}") from None


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
