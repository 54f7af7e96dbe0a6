"""Stages that were trained elsewhere: configs without a run, and weights put into our layout."""

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.config import RunConfig, from_mapping
from unclip_jax.config.schema import ClipModel
from unclip_jax.core import trees
from unclip_jax.core.hashing import weights_hash
from unclip_jax.generation import TrainedStage
from unclip_jax.interop.tensor_map import Shapes
from unclip_jax.models import stack_layers, unstack_layers

UNKNOWN_DATA = "imported/unknown.tar"  # what `data.train` says of weights trained elsewhere
UNKNOWN_CLIP = "the clip beside it"  # what `clip.path` says


def imported_config(
    kind: str,
    model: Mapping[str, Any],
    diffusion: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The config of a stage whose training is unknown."""
    values: dict[str, Any] = {
        "stage": kind,
        "model": dict(model),
        "data": {"train": UNKNOWN_DATA},
        "train": {"batch_size": 1, "duration": "1 steps"},
    }
    if kind in ("prior", "decoder"):
        values["clip"] = {"path": UNKNOWN_CLIP}
    if diffusion is not None:
        values["diffusion"] = dict(diffusion)
    if sampling is not None:
        values["sampling"] = dict(sampling)
    return from_mapping(values)


def imported_stage(
    config: RunConfig,
    load: Callable[[Shapes], Mapping[str, Any]],
    *,
    source: str,
    clip: TrainedStage | None = None,
    step: int = 0,
    statistics: Mapping[str, np.ndarray] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrainedStage:
    """A stage whose parameters `load` makes, float32.

    Args:
      load: {path: shape} of the parameters, layers not stacked -> a nested dict of arrays.
      clip: the CLIP that a prior or decoder builds on.
    """
    model = clip.model if clip else None
    params = load(unstacked_shapes(config, model))
    if getattr(config.model, "scan_layers", False):
        params = stack_layers(dict(params))
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    return TrainedStage(
        config=config,
        params=params,
        step=step,
        weights_sha256=weights_hash(params),
        source=source,
        clip_sha256=clip.weights_sha256 if clip else None,
        statistics=statistics,
        provenance=dict(provenance or {}),
    )


def unstacked_shapes(config: RunConfig, clip: ClipModel | None) -> dict[str, tuple[int, ...]]:
    """{path: shape} of a stage's parameters, with one block per layer."""
    shapes = jax.eval_shape(stages.build(config, clip).init, jax.random.key(0))
    flat = trees.flatten(jax.eval_shape(unstack_layers, dict(shapes)))
    return {path: leaf.shape for path, leaf in flat.items()}


def file_facts(paths: Iterable[pathlib.Path]) -> list[dict[str, str]]:
    """Names and SHA-256 of the files that weights were read from."""
    facts = []
    for path in paths:
        with path.open("rb") as stream:
            facts.append(
                {"name": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
            )
    return facts
