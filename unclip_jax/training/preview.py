"""Pictures drawn during training, always with the same keys, so that steps can be compared.

    samples/step_N.png          for the first validation examples
    samples/step_N_prompts.png  for `train.preview.prompts`, where the stage draws from text alone

All processes draw together, and one of them saves.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.core import images, rng
from unclip_jax.errors import UserError
from unclip_jax.parallel import replicated
from unclip_jax.parallel.processes import is_primary
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.stages.stage import Preview, Stage
from unclip_jax.text import tokenize
from unclip_jax.training.begin import place_replicated
from unclip_jax.training.state import TrainState
from unclip_jax.training.writers import MetricWriter

Previewer = Callable[[int, TrainState], None]


def make_previewer(
    config: RunConfig,
    stage: Stage,
    frozen: Any,
    held_out: data.Dataset | None,
    mesh: Mesh,
    workdir: pathlib.Path,
    writer: MetricWriter,
) -> Previewer | None:
    """What draws all of the config's previews, given (step, state); None if there are none.

    Raises:
      UserError: prompts for a stage that does not draw from text alone.
    """
    wanted = config.train.preview
    grids: list[_Grid] = []
    if stage.preview is not None and held_out is not None and wanted.examples:
        count = min(wanted.examples, len(held_out))
        batch = next(data.eval_batches(held_out.uncut(), count))
        del batch["valid"]
        captions = [data.caption(held_out, i) for i in range(count)]
        grids.append(_grid("samples", "", stage.preview, batch, captions, config.seed, mesh))
    if wanted.prompts:
        if stage.preview_text is None or stage.needs.context_length is None:
            raise UserError(
                f"config.train.preview.prompts: stage {stage.name!r} as configured draws nothing "
                "from text alone; leave them out"
            )
        tokens = {"tokens": tokenize(wanted.prompts, stage.needs.context_length)}
        prompts = list(wanted.prompts)
        grids.append(
            _grid("prompts", "_prompts", stage.preview_text, tokens, prompts, config.seed, mesh)
        )

    def draw(step: int, state: TrainState) -> None:
        for grid in grids:
            columns = grid.draw(state.ema_params, frozen, grid.batch)
            if is_primary():
                _save(grid, columns, step, workdir / "samples", writer)

    return draw if grids else None


@dataclasses.dataclass(frozen=True)
class _Grid:
    """One picture of a row per caption: its name, its file's ending, and how it is drawn."""

    name: str
    ending: str
    captions: Sequence[str]
    batch: Any
    draw: Callable[[Any, Any, Any], dict[str, jax.Array]]


def _grid(
    name: str, ending: str, preview: Preview, batch: Any, captions: list[str], seed: int, mesh: Mesh
) -> _Grid:
    def draw(params: Any, frozen: Any, batch: Any) -> Any:
        keys = rng.example_keys(jax.random.key(seed), "preview", 0, len(captions))
        return preview(params, frozen, batch, keys)

    drawn = jax.jit(draw, out_shardings=replicated(mesh))
    return _Grid(name, ending, captions, place_replicated(batch, mesh), drawn)


def _save(
    grid: _Grid, columns: dict[str, Any], step: int, folder: pathlib.Path, writer: MetricWriter
) -> None:
    """A row per caption, a column per kind of picture."""
    pictures = {k: np.asarray(images.to_uint8(v)) for k, v in columns.items()}
    rows = [[p[i] for p in pictures.values()] for i in range(len(grid.captions))]
    picture = labelled_grid(rows, grid.captions, list(pictures))
    folder.mkdir(exist_ok=True)
    picture.save(folder / f"step_{step:07d}{grid.ending}.png")
    writer.image(step, grid.name, np.asarray(picture.convert("RGB")))
