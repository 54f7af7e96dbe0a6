"""What a pipeline gives back: pictures with what every stage made of them."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from unclip_jax.config.diffusion_settings import Sampling
from unclip_jax.errors import UserError

Stages = Mapping[str, UInt8[np.ndarray, "..."]]
"""{stage name: pictures} of decoder and upsamplers, in the order they run."""


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Pictures of P prompts, n each, with what every stage made of them.

    Attributes:
      prompts: P captions.
      seed: the one they were drawn with.
      embeddings: the prior's image embeddings, float32 [P, n, D], in CLIP's space.
      stages: {stage name: uint8 [P, n, S, S, 3]}.
      sampling: {stage name: settings} in force.
    """

    prompts: tuple[str, ...]
    seed: int
    embeddings: Float[np.ndarray, "p n d"]
    stages: Stages
    sampling: Mapping[str, Sampling]

    @property
    def images(self) -> UInt8[np.ndarray, "p n s s 3"]:
        """The pictures of the last stage."""
        return last_stage(self.stages)


@dataclasses.dataclass(frozen=True, eq=False)
class Edited:
    """Pictures that an editing operation drew, as a table of R rows and C columns.

    Attributes:
      operation: its name.
      rows, columns: labels of the table.
      stages: {stage name: uint8 [R, C, H, W, 3]}.
      sampling: {stage name: settings} in force.
      facts: what else is worth keeping, plain JSON values: angles, scores, probabilities.
    """

    operation: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    stages: Stages
    sampling: Mapping[str, Sampling]
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def images(self) -> UInt8[np.ndarray, "r c h w 3"]:
        """The pictures of the last stage."""
        return last_stage(self.stages)


def last_stage(stages: Stages) -> np.ndarray:
    """The pictures of the last stage.

    Raises:
      UserError: there is none, for want of a decoder.
    """
    if not stages:
        raise UserError("this cascade has no decoder, so there are embeddings but no pictures")
    return list(stages.values())[-1]
