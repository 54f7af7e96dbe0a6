"""`config.init.path`: parameters for a new run, from a run's workdir or from a bundle.

With `config.lora` they are the frozen base of every start of the run, and `base.json` in its
workdir says which they are.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from unclip_jax import stages
from unclip_jax.config import RunConfig, load_config
from unclip_jax.config.schema import UpsamplerModel
from unclip_jax.core.hashing import weights_hash
from unclip_jax.data.files import replace_file
from unclip_jax.errors import UserError
from unclip_jax.parallel.processes import is_primary
from unclip_jax.training.begin import Initial
from unclip_jax.training.checkpoint import directory
from unclip_jax.training.restore import complete_steps
from unclip_jax.training.weights import load_weights


def initial_parameters(config: RunConfig, workdir: pathlib.Path) -> Initial | None:
    """What `config.init.path` names; None without one, or if the workdir has checkpoints."""
    own = directory(workdir)
    resumes = own.is_dir() and bool(complete_steps(own))
    if config.init.path is None or config.lora.rank or resumes:
        return None
    return load_initial(config)


def base_parameters(config: RunConfig, workdir: pathlib.Path) -> Any:
    """The network that adapters are trained beside; a resumed run must find the same one."""
    initial, path = load_initial(config), workdir / "base.json"
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), initial.params)
    record = {"path": config.init.path, "sha256": weights_hash(params)}
    if not path.exists():
        if is_primary():
            workdir.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(record).encode())
    elif json.loads(path.read_text())["sha256"] != record["sha256"]:
        raise UserError(
            f"{workdir} trains adapters of other weights than {config.init.path} now holds: give "
            "another --workdir"
        )
    return params


def initial_statistics(config: RunConfig) -> dict[str, list[float]] | None:
    """The statistics of embeddings that the initial parameters were trained with, if any."""
    if config.init.path is None:
        return None
    folder = pathlib.Path(config.init.path)
    if (folder / "frozen.json").is_file():
        return json.loads((folder / "frozen.json").read_text())["statistics"]
    if not (folder / "bundle.json").is_file():
        return None
    found: Mapping[str, Any] | None = _stage_of_bundle(config, folder)[1].statistics
    return None if found is None else {k: np.asarray(v).tolist() for k, v in found.items()}


def load_initial(config: RunConfig) -> Initial:
    """What `config.init.path` names."""
    assert config.init.path is not None
    folder = pathlib.Path(config.init.path)
    if (folder / "bundle.json").is_file():
        return _of_bundle(config, folder)
    if (folder / "config.json").is_file():
        return _of_workdir(config, folder)
    raise UserError(f"config.init.path={folder} is neither a run's workdir nor a bundle")


def _of_workdir(config: RunConfig, folder: pathlib.Path) -> Initial:
    theirs = load_config(str(folder / "config.json"))
    _check_stage(config, theirs, folder)
    model = None
    if theirs.clip.path is not None:
        from unclip_jax.cli.frozen import load_clip

        model = load_clip(theirs.clip.path).model
    stage = stages.build(theirs, model) if model else stages.build(theirs)
    abstract = jax.eval_shape(stage.init, jax.random.key(0))
    params, step = load_weights(folder, abstract, config.init.weights, theirs.ema)
    return Initial(f"step {step} ({config.init.weights}) of {folder}", params)


def _of_bundle(config: RunConfig, folder: pathlib.Path) -> Initial:
    name, found = _stage_of_bundle(config, folder)
    return Initial(f"{name} of {folder}", found.params)


def _stage_of_bundle(config: RunConfig, folder: pathlib.Path) -> tuple[str, Any]:
    from unclip_jax.interop.bundle import read_bundle

    named = read_bundle(folder).cascade.named()
    fitting = {name: s for name, s in named.items() if s.config.stage == config.stage}
    if isinstance(config.model, UpsamplerModel) and len(fitting) > 1:
        size = config.model.image_size
        fitting = {name: s for name, s in fitting.items() if s.model.image_size == size}
    if len(fitting) != 1:
        raise UserError(
            f"config.init.path={folder}: this bundle of {', '.join(named)} has no one stage for "
            f"config.stage={config.stage}"
        )
    return next(iter(fitting.items()))


def _check_stage(config: RunConfig, theirs: RunConfig, folder: pathlib.Path) -> None:
    if theirs.stage != config.stage:
        raise UserError(
            f"config.init.path={folder} holds a {theirs.stage!r} run, not config.stage="
            f"{config.stage!r}"
        )
