"""Reading a run's config: a file with variants, then overrides, then the typed schema.

    load_config("configs/decoder.py:emoji", {"optim.learning_rate": "1e-4"}) -> RunConfig

A config file is Python (so it is trusted code) and defines `get_config(variant) -> ConfigDict`.
A bare name such as `decoder:emoji` means the preset that ships with the package. A `.json` file
is a resolved config, as written into every workdir.
"""

import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from unclip_jax.config.checks import check
from unclip_jax.config.schema import MODEL_OF_STAGE, RunConfig
from unclip_jax.config.typed import build, to_plain
from unclip_jax.errors import UserError, did_you_mean


def load_config(spec: str, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """The checked config that `spec` names, with `overrides` {dotted path: text} applied."""
    values = read_values(spec)
    for path, text in (overrides or {}).items():
        _set(values, path, text)
    return from_mapping(values)


def from_mapping(values: Mapping[str, Any]) -> RunConfig:
    """A checked `RunConfig` from a nested mapping, such as a parsed config.json."""
    stage = values.get("stage")
    if stage not in MODEL_OF_STAGE:
        stages = ", ".join(MODEL_OF_STAGE)
        raise UserError(f"config.stage: {stage!r} is not one of {stages}")
    model = build(MODEL_OF_STAGE[stage], values.get("model", {}), "config.model")
    # The model's schema depends on the stage, so it is built first and passed through as a value.
    config = build(RunConfig, {**values, "model": model})
    check(config)
    return config


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists; `from_mapping` reads it back."""
    return to_plain(config)


def read_values(spec: str) -> dict[str, Any]:
    """The nested settings of a config file, before overrides and checks."""
    path, _, variant = spec.partition(":")
    if path.endswith(".json"):
        try:
            return json.loads(pathlib.Path(path).read_text())
        except FileNotFoundError:
            raise UserError(f"config file {path} does not exist") from None
        except json.JSONDecodeError as e:
            raise UserError(f"config file {path} is not JSON: {e}") from None
    module = load_module(_find(path), "get_config")
    config = module.get_config(variant) if variant else module.get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"config file {path}: get_config must return an ml_collections.ConfigDict")
    return _plain(config)


def preset_dir() -> pathlib.Path:
    """Where the presets lie: the installed package's, or the repository's top level."""
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _find(path: str) -> pathlib.Path:
    file = pathlib.Path(path)
    if file.is_file():
        return file
    preset = preset_dir() / f"{file.stem}.py"
    # 'decoder' and 'configs/decoder.py' both find the shipped preset from any directory.
    if preset.is_file() and str(file) in (file.stem, f"configs/{file.stem}.py"):
        return preset
    names = [p.stem for p in preset_dir().glob("*.py") if p.stem != "__init__"]
    raise UserError(f"config file {path} does not exist{did_you_mean(file.stem, names)}")


def load_module(path: pathlib.Path, function: str) -> Any:
    """Runs a config file, which must define `function`."""
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f"config file {path} defines no {function}(variant)")
    return module


def _plain(value: Any) -> Any:
    if isinstance(value, ml_collections.ConfigDict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _set(values: dict[str, Any], path: str, text: str) -> None:
    *groups, leaf = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise UserError(f"config.{path}: {group!r} is a single setting, not a group")
    values[leaf] = text
