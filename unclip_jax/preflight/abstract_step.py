"""All that the train step of a config takes, as shapes with shardings: no data, no weights."""

import dataclasses
from typing import Any

import jax

from unclip_jax import stages
from unclip_jax.config import RunConfig
from unclip_jax.config.schema import ClipModel
from unclip_jax.parallel import batch_sharding, replicated
from unclip_jax.parallel.mesh import AnyMesh
from unclip_jax.preflight.abstract import Shapes, abstract_batch, abstract_frozen
from unclip_jax.stages import lora
from unclip_jax.stages.features import towers_in_use
from unclip_jax.stages.stage import Stage
from unclip_jax.training.program import Program, make_program
from unclip_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A step and its other arguments beside the state."""

    program: Program
    frozen: Any
    batch: Any


def abstract_stage(config: RunConfig, clip: ClipModel | None) -> tuple[Stage, Shapes]:
    """The stage that a config trains, and what it reads, as shapes."""
    stage = stages.build(config, clip)
    frozen = abstract_frozen(config, clip if config.stage in ("prior", "decoder") else None)
    if frozen:
        frozen["clip"] = towers_in_use(config, stage, frozen["clip"])
    if config.lora.rank:
        base = jax.eval_shape(stage.init, jax.random.key(0))
        stage, frozen = lora.adapt(stage, config.lora, base), {**frozen, lora.BASE: base}
    return stage, frozen


def abstract_step(
    config: RunConfig,
    stage: Stage,
    frozen: Shapes,
    clip: ClipModel | None,
    mesh: AnyMesh,
    shapes: TrainState | None = None,
) -> AbstractStep:
    """The step of a config on a mesh.

    Args:
      stage, frozen: from `abstract_stage`.
      shapes: of the state, if they are known.
    """
    # How long epoch and run are changes constants of the program, not its size.
    program = make_program(
        config, stage, mesh, dataset_size=10**9, total_steps=10**6, shapes=shapes
    )
    batch = abstract_batch(stage.needs, config.train.batch_size, clip)
    return AbstractStep(
        program, _placed(frozen, replicated(mesh)), _placed(batch, batch_sharding(mesh))
    )


def _placed(tree: Any, sharding: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
