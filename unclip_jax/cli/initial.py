"""`config.init.path`: parameters for a new run, from a run's workdir or from a bundle."""

import pathlib

import jax

from unclip_jax import stages
from unclip_jax.config import RunConfig, load_config
from unclip_jax.config.schema import UpsamplerModel
from unclip_jax.errors import UserError
from unclip_jax.training.begin import Initial
from unclip_jax.training.checkpoint import directory
from unclip_jax.training.restore import complete_steps, load_params


def initial_parameters(config: RunConfig, workdir: pathlib.Path) -> Initial | None:
    """What `config.init.path` names; None without one, or if the workdir has checkpoints."""
    own = directory(workdir)
    if config.init.path is None or (own.is_dir() and complete_steps(own)):
        return None
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
    params, step = load_params(folder, abstract, weights=config.init.weights)
    return Initial(f"step {step} ({config.init.weights}) of {folder}", params)


def _of_bundle(config: RunConfig, folder: pathlib.Path) -> Initial:
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
    name, found = next(iter(fitting.items()))
    return Initial(f"{name} of {folder}", found.params)


def _check_stage(config: RunConfig, theirs: RunConfig, folder: pathlib.Path) -> None:
    if theirs.stage != config.stage:
        raise UserError(
            f"config.init.path={folder} holds a {theirs.stage!r} run, not config.stage="
            f"{config.stage!r}"
        )
