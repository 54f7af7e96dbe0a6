"""The stages of a cascade on devices: what every step needs to run a program over many examples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key, UInt32

from unclip_jax.config.schema import RunConfig
from unclip_jax.errors import UserError
from unclip_jax.generation import prompts, settings
from unclip_jax.generation.batches import Report, choose_batch_size, no_report, run_batched
from unclip_jax.generation.cascade import Cascade, TrainedStage
from unclip_jax.generation.programs import Setup
from unclip_jax.generation.prompts import EmbedTexts, Prompt
from unclip_jax.parallel import ShardingRules
from unclip_jax.stages import decoder_network, logical_axes, prior
from unclip_jax.stages.captions import Captions
from unclip_jax.stages.sampling import make_plan

CONTEXT_LENGTHS: Mapping[str, Callable[..., int]] = {
    "prior": prior.context_length,
    "decoder": decoder_network.context_length,
}
Keys = Key[Array, " n"] | UInt32[np.ndarray, "n k"]


class Options(TypedDict, total=False):
    """How to run, for every method that draws.

    sampling: {stage name: {setting: value}} over the stages' own, see `settings`.
    batch_size: examples at a time, rounded up to a multiple of the devices; see `batches`.
    report: told of the progress of each stage, see `batches.Report`.
    """

    sampling: settings.Overrides | None
    batch_size: int | None
    report: Report


class Runner:
    """A cascade, its weights on the devices of a mesh, and how programs are fed."""

    def __init__(self, cascade: Cascade, mesh: Mesh):
        self.cascade, self.mesh = cascade, mesh
        rules = ShardingRules(mesh, logical_axes)
        self._params = {
            name: jax.device_put(stage.params, rules.shardings(stage.params))
            for name, stage in cascade.named().items()
        }

    @property
    def clip(self) -> TrainedStage:
        """The CLIP."""
        return self.stage("clip")

    def stage(self, name: str) -> TrainedStage:
        """A stage by name; `UserError` if there is none."""
        stages = self.cascade.named()
        if name not in stages:
            raise UserError(f"this cascade has no {name}, only {', '.join(stages)}")
        return stages[name]

    def params(self, name: str) -> Any:
        """Its weights on the devices."""
        self.stage(name)
        return self._params[name]

    def setup(self, name: str, options: Options, **how: Any) -> tuple[Setup, RunConfig]:
        """A stage's side of a program, and its config, with the settings in force.

        Args:
          how: options of `stages.sampling.make_plan`.
        """
        stage = self.stage(name)
        chosen = settings.resolve(self.cascade, options.get("sampling"))[name]
        frozen = {}
        if name in CONTEXT_LENGTHS:
            frozen["clip"] = self.params("clip")
            if stage.statistics is not None:
                frozen["statistics"] = dict(stage.statistics)
        setup = Setup(self._params[name], make_plan(stage.config, chosen, **how), frozen)
        return setup, settings.compiled_part(stage.config, chosen)

    def texts(
        self, name: str, captions: Sequence[Prompt], negative: Prompt, embed_texts: EmbedTexts
    ) -> tuple[Captions, Captions]:
        """What a stage is guided to and away from."""
        model = self.stage(name).model
        length = CONTEXT_LENGTHS[name](model, self.clip.model)
        embed = embed_texts if model.text_encoder == "clip" else None
        encode = partial(prompts.encode, length=length, embed_texts=embed)
        return encode(captions), encode([negative] * len(captions))

    def run(self, name: str, program: Any, columns: Sequence[Any], options: Options) -> Any:
        """program(*columns) on the host, in batches; `name` is for reports and messages."""
        lengths = [len(jax.tree.leaves(c)[0]) for c in columns if jax.tree.leaves(c)]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise UserError(f"{name}: needs one or more of each of its inputs, got {lengths}")
        size = choose_batch_size(lengths[0], options.get("batch_size"), self.mesh)
        with options.get("report", no_report)(name, lengths[0]) as advance:
            return run_batched(program, columns, batch_size=size, mesh=self.mesh, advance=advance)
