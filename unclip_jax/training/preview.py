"""Pictures drawn during training, always for the same validation examples and keys.

All processes draw together, and one of them saves.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.core import images, rng
from unclip_jax.parallel import replicated
from unclip_jax.parallel.processes import is_primary
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.stages.stage import Preview, Stage
from unclip_jax.training.begin import place_replicated
from unclip_jax.training.state import TrainState
from unclip_jax.training.writers import MetricWriter


class Previewer:
    """Called with (step, state); writes `samples/step_N.png` from the averaged weights."""

    def __init__(
        self,
        config: RunConfig,
        stage: Stage,
        frozen: Any,
        dataset: data.Dataset,
        mesh: Mesh,
        workdir: pathlib.Path,
        writer: MetricWriter,
    ):
        assert stage.preview is not None
        count = min(config.train.preview.examples, len(dataset))
        batch = next(data.eval_batches(dataset, count))
        del batch["valid"]
        self._batch = place_replicated(batch, mesh)
        self._captions = [data.caption(dataset, i) for i in range(count)]
        self._draw = jax.jit(
            _draw(stage.preview, config.seed, count), out_shardings=replicated(mesh)
        )
        self._frozen, self._folder, self._writer = frozen, workdir / "samples", writer

    def __call__(self, step: int, state: TrainState) -> None:
        """Draws and saves one grid: a row per example, a column per kind of picture."""
        columns = self._draw(state.ema_params, self._frozen, self._batch)
        if not is_primary():
            return
        pictures = {k: np.asarray(images.to_uint8(v)) for k, v in columns.items()}
        rows = [[p[i] for p in pictures.values()] for i in range(len(self._captions))]
        grid = labelled_grid(rows, self._captions, list(pictures))
        self._folder.mkdir(exist_ok=True)
        grid.save(self._folder / f"step_{step:07d}.png")
        self._writer.image(step, "samples", np.asarray(grid.convert("RGB")))


def _draw(preview: Preview, seed: int, count: int) -> Callable[[Any, Any, Any], Any]:
    def draw(params: Any, frozen: Any, batch: Any) -> Any:
        keys = rng.example_keys(jax.random.key(seed), "preview", 0, count)
        return preview(params, frozen, batch, keys)

    return draw
