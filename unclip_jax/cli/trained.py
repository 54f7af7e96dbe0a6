"""Trained stages of runs and bundles, as commands name them by a path."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.cli.initial import base_parameters
from unclip_jax.config import from_mapping, load_config
from unclip_jax.config.schema import ClipModel, Lora
from unclip_jax.core.hashing import weights_hash
from unclip_jax.errors import UserError
from unclip_jax.generation import TrainedStage
from unclip_jax.interop import manifest, read_bundle
from unclip_jax.stages import lora
from unclip_jax.training.weights import load_weights

PROVENANCE = ("started", "unclip_jax", "python", "packages", "machine", "git_revision", "data")


def read_stages(path: pathlib.Path, weights: str = "ema") -> list[TrainedStage]:
    """The stage of a run, or all stages of a bundle; of a run its `weights`, by name."""
    if (path / manifest.FILE).is_file():
        return list(read_bundle(path).cascade.named().values())
    return [read_run(path, weights)]


def read_run(workdir: pathlib.Path, weights: str = "ema") -> TrainedStage:
    """The weights of a run's newest checkpoint, with what a bundle says about them.

    Raises:
      UserError: if it is no run's directory, or has no checkpoint.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is neither a run's directory nor a bundle: no config.json")
    config = load_config(str(workdir / "config.json"))
    frozen = _read_json(workdir / "frozen.json") if config.stage in ("prior", "decoder") else None
    stage = stages.build(config, _clip_model(frozen))
    provenance: dict[str, Any] = {"weights": weights}
    base = base_parameters(config, workdir) if config.lora.rank else None
    if base is not None:
        stage = lora.adapt(stage, config.lora, base)
    abstract = jax.eval_shape(stage.init, jax.random.key(0))
    restored, step = load_weights(workdir, abstract, weights, config.ema)
    if base is not None:
        # What is exported is the network, not how it was trained.
        restored = lora.merge(config.lora, base, restored)
        provenance |= {"lora_rank": config.lora.rank, "base_sha256": weights_hash(base)}
        config = dataclasses.replace(config, lora=Lora())
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), restored)
    return TrainedStage(
        config=config,
        params=params,
        step=step,
        weights_sha256=weights_hash(params),
        source=str(workdir),
        clip_sha256=frozen["clip"]["sha256"] if frozen else None,
        statistics=_statistics(frozen),
        provenance=_provenance(workdir) | provenance,
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
