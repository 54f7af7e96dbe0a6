"""Validation: the loss of the averaged weights on held-out data, always with the same noise."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from unclip_jax import data
from unclip_jax.config import RunConfig
from unclip_jax.data.device import needed_rows, to_global_arrays
from unclip_jax.parallel import batch_sharding
from unclip_jax.stages.stage import Stage
from unclip_jax.training.state import TrainState
from unclip_jax.training.step import make_eval_step


class Validation:
    """Called with (step, state); returns {"validation/loss": mean over the validation examples}."""

    def __init__(
        self,
        config: RunConfig,
        stage: Stage,
        frozen: Any,
        dataset: data.Dataset,
        mesh: Mesh,
        interrupted: Callable[[], bool],
    ):
        self._step = make_eval_step(stage, seed=config.seed)
        self._interrupted = interrupted
        self._frozen, self._dataset = frozen, dataset
        self._batch_size = config.train.batch_size
        self._limit = config.train.validation_batches
        self._layout = batch_sharding(mesh)
        self._rows = needed_rows(self._layout, self._batch_size)

    def __call__(self, step: int, state: TrainState) -> dict[str, float] | None:
        """Averages over the first `train.validation_batches` batches; None if interrupted."""
        del step
        sums = []
        batches = data.eval_batches(self._dataset, self._batch_size, rows=self._rows)
        for number, batch in enumerate(itertools.islice(batches, self._limit)):
            on_device = to_global_arrays(
                batch, self._layout, batch_size=self._batch_size, rows=self._rows
            )
            sums.append(self._step(state.ema_params, self._frozen, on_device, np.int32(number)))
            if self._interrupted():
                return None
        total = {k: sum(float(s[k]) for s in sums) for k in ("loss", "examples")}
        return {"validation/loss": total["loss"] / total["examples"]}
