"""Trained stages that fit together: text -> CLIP -> prior -> decoder -> upsamplers.

`compose` sorts stages into a `Cascade` and refuses those that were not made for each other: an
embedding of another CLIP, or a picture of another size, would be taken without complaint by every
network and give nonsense.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from unclip_jax.config import RunConfig
from unclip_jax.core import trees
from unclip_jax.errors import UserError
from unclip_jax.stages.embedding import needs_statistics

LOSES_LENGTH = ("unit", "paper", "sqrt_dim")  # scales of a prior that give |z| near 1
NEEDS_LENGTH = ("raw", "whiten")  # scales of a decoder that take z as CLIP gives it


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedStage:
    """One stage with its weights.

    Attributes:
      config: what it is.
      params: averaged weights, a nested dict of float32 arrays.
      step: how many updates they had.
      weights_sha256: their `core.hashing.weights_hash`.
      clip_sha256: that of the CLIP whose embeddings a prior or decoder learned; else None.
      statistics: {"mean": [D], "std": [D]} of those embeddings, where the stage uses them.
      provenance: facts of the run that trained it, plain JSON values.
      source: where it was read from, for messages.
    """

    config: RunConfig
    params: Mapping[str, Any]
    step: int
    weights_sha256: str
    source: str
    clip_sha256: str | None = None
    statistics: Mapping[str, np.ndarray] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The config of its network; which class it is follows from `config.stage`."""
        return self.config.model

    @property
    def parameter_count(self) -> int:
        """Number of scalars in `params`."""
        return trees.count(self.params)


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """Stages that fit together; any may be missing. Upsamplers are in the order they run."""

    clip: TrainedStage | None = None
    prior: TrainedStage | None = None
    decoder: TrainedStage | None = None
    upsamplers: tuple[TrainedStage, ...] = ()

    def named(self) -> dict[str, TrainedStage]:
        """The stages in the order they run: "clip", "prior", "decoder", "upsampler", and further
        upsamplers as "upsampler_256", by the size of what they make."""
        found = {"clip": self.clip, "prior": self.prior, "decoder": self.decoder}
        for i, stage in enumerate(self.upsamplers):
            found[f"upsampler_{stage.model.image_size}" if i else "upsampler"] = stage
        return {name: stage for name, stage in found.items() if stage is not None}


def compose(stages: Iterable[TrainedStage]) -> Cascade:
    """The cascade of some stages, given in any order.

    Raises:
      UserError: if there are none, if two do the same work, or if two were not made for each other.
    """
    stages = tuple(stages)
    if not stages:
        raise UserError("a cascade needs at least one trained stage, got none")
    singles = {kind: _only(stages, kind) for kind in ("clip", "prior", "decoder")}
    upsamplers = [s for s in stages if s.config.stage == "upsampler"]
    cascade = Cascade(
        **singles, upsamplers=tuple(sorted(upsamplers, key=lambda s: s.model.low_size))
    )
    _check_clip(cascade)
    _check_embeddings(cascade)
    _check_sizes(cascade)
    return cascade


def _only(stages: Iterable[TrainedStage], kind: str) -> TrainedStage | None:
    found = [s for s in stages if s.config.stage == kind]
    if len(found) > 1:
        raise UserError(f"{found[0].source} and {found[1].source} are both a {kind}: give one")
    return found[0] if found else None


def _check_clip(cascade: Cascade) -> None:
    clip = cascade.clip
    for stage in (cascade.prior, cascade.decoder):
        if stage is None:
            continue
        kind = stage.config.stage
        if clip is None:
            raise UserError(
                f"the {kind} {stage.source} speaks the embeddings of a CLIP: add the clip it was "
                f"trained against ({stage.config.clip.path})"
            )
        if stage.clip_sha256 != clip.weights_sha256:
            raise UserError(
                f"the {kind} {stage.source} was trained against another CLIP "
                f"({_short(stage.clip_sha256)}) than {clip.source} ({_short(clip.weights_sha256)})"
            )


def _check_embeddings(cascade: Cascade) -> None:
    for stage in (cascade.prior, cascade.decoder):
        if stage is None or stage.statistics is not None:
            continue
        scale = stage.model.embedding_scale
        if needs_statistics(scale):
            raise UserError(
                f"{stage.source} (embedding_scale={scale!r}) lacks the statistics of embeddings "
                "that it was trained with"
            )
    if cascade.prior is None or cascade.decoder is None:
        return
    made, taken = cascade.prior.model, cascade.decoder.model
    if made.embedding_scale in LOSES_LENGTH and taken.embedding_scale in NEEDS_LENGTH:
        raise UserError(
            f"the decoder {cascade.decoder.source} (embedding_scale={taken.embedding_scale!r}) "
            f"needs the length of embeddings, which the prior {cascade.prior.source} "
            f"(embedding_scale={made.embedding_scale!r}) does not give: train one of them anew"
        )


def _check_sizes(cascade: Cascade) -> None:
    before = cascade.decoder
    for stage in cascade.upsamplers:
        model = stage.model
        if before is not None and model.low_size != before.model.image_size:
            raise UserError(
                f"the upsampler {stage.source} takes pictures of {model.low_size} px, but "
                f"{before.source} makes {before.model.image_size} px"
            )
        before = stage


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else digest[:12]
