"""Experiment trackers of others, by name: imported where used, so that training needs none.

Both write below the workdir unless their own environment variables send them to a server, and a
resumed run goes on in the tracker's run that it began, whose name is kept in `trackers.json`.
"""

import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Mapping

import numpy as np

from unclip_jax.config import RunConfig, to_mapping
from unclip_jax.errors import UserError
from unclip_jax.training.writers import ConsoleTracker, TensorBoardTracker, Tracker

PROJECT = "unclip_jax"


def open_trackers(config: RunConfig, workdir: pathlib.Path, resume_step: int) -> list[Tracker]:
    """The trackers that `config.train.writers` names."""
    makers: dict[str, Callable[[], Tracker]] = {
        "console": lambda: ConsoleTracker(),
        "tensorboard": lambda: TensorBoardTracker(workdir, resume_step),
        "wandb": lambda: WandbTracker(config, workdir),
        "mlflow": lambda: MlflowTracker(config, workdir),
    }
    return [makers[name]() for name in config.train.writers]


class WandbTracker:
    """Weights & Biases; `WANDB_MODE=offline` keeps the run in `workdir/wandb`."""

    def __init__(self, config: RunConfig, workdir: pathlib.Path):
        try:
            import wandb
        except ImportError:
            raise _not_installed("wandb") from None
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(workdir),
            id=_remembered(workdir, "wandb", lambda: uuid.uuid4().hex[:8]),
            name=workdir.name,
            resume="allow",
            config=to_mapping(config),
            settings=wandb.Settings(console="off"),
        )
        # Steps come a little out of order (validation before the step's own metrics): as an axis
        # of their own they may, where wandb's internal step would drop them.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """One picture."""
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def close(self) -> None:
        """Waits until all is written or sent."""
        self._run.finish()


class MlflowTracker:
    """MLflow; without `MLFLOW_TRACKING_URI`, the run lies in `workdir/mlruns`."""

    def __init__(self, config: RunConfig, workdir: pathlib.Path):
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # Its local store of files needs no database, but has to be asked for.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (workdir.absolute() / "mlruns").as_uri()
        try:
            import mlflow
            from mlflow.entities import Metric
        except ImportError:
            raise _not_installed("mlflow") from None
        self._metric = Metric
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._run = _remembered(workdir, "mlflow", lambda: self._new_run(config, workdir.name))
        self._client.update_run(self._run, status="RUNNING")

    def _new_run(self, config: RunConfig, name: str) -> str:
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        run = self._client.create_run(experiment, run_name=name).info.run_id
        self._client.log_dict(run, to_mapping(config), "config.json")
        return run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One metric per name."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """One picture."""
        self._client.log_image(self._run, picture, key=name, step=step)

    def close(self) -> None:
        """Marks the run as finished; a resumed one is marked as running again."""
        self._client.set_terminated(self._run)


def _remembered(workdir: pathlib.Path, tracker: str, make: Callable[[], str]) -> str:
    """The tracker's name for this run: the one in `trackers.json`, or a new one, kept there."""
    path = workdir / "trackers.json"
    names = json.loads(path.read_text()) if path.exists() else {}
    if tracker not in names:
        names[tracker] = make()
        path.write_text(json.dumps(names))
    return names[tracker]


def _not_installed(name: str) -> UserError:
    return UserError(
        f"config.train.writers names {name!r}, which is not installed: "
        f"pip install 'unclip_jax[{name}]'"
    )
