"""Pictures drawn during training, always for the same validation examples and keys."""

import pathlib
from typing import Any

import jax
import numpy as np

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.core import images, rng
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.stages.stage import Stage
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
        workdir: pathlib.Path,
        writer: MetricWriter,
    ):
        assert stage.preview is not None
        count = min(config.train.preview.examples, len(dataset))
        batch = next(data.eval_batches(dataset, count))
        self._batch = {k: v for k, v in batch.items() if k != "valid"}
        self._captions = [data.caption(dataset, i) for i in range(count)]
        self._keys = rng.example_keys(jax.random.key(config.seed), "preview", 0, count)
        self._draw = jax.jit(stage.preview)
        self._frozen, self._folder, self._writer = frozen, workdir / "samples", writer

    def __call__(self, step: int, state: TrainState) -> None:
        """Draws and saves one grid: a row per example, a column per kind of picture."""
        columns = self._draw(state.ema_params, self._frozen, self._batch, self._keys)
        pictures = {k: np.asarray(images.to_uint8(v)) for k, v in columns.items()}
        rows = [[p[i] for p in pictures.values()] for i in range(len(self._captions))]
        grid = labelled_grid(rows, self._captions, list(pictures))
        self._folder.mkdir(exist_ok=True)
        grid.save(self._folder / f"step_{step:07d}.png")
        self._writer.image(step, "samples", np.asarray(grid.convert("RGB")))
