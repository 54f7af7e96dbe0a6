"""Plain mappings -> frozen dataclasses, strictly: an unknown key or a wrong type is one clear line.

`build` walks a dataclass and a nested mapping together and converts each leaf by its annotation.
Strings are accepted for any leaf (they come from the command line) and parsed by the annotation, so
`--config.optim.learning_rate=1e-4` needs no quoting rules of its own.
"""

import ast
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from unclip_jax.errors import UserError, did_you_mean


def build(cls: type, values: Mapping[str, Any], path: str = "config") -> Any:
    """An instance of the dataclass `cls` from a nested mapping; `path` names it in errors."""
    if not isinstance(values, Mapping):
        raise _wrong(path, "a group of settings", values)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise UserError(f"{path}.{key}: no such setting{did_you_mean(key, fields)}")
    missing = [name for name, f in fields.items() if name not in values and _required(f)]
    if missing:
        raise UserError(f"{path}.{missing[0]}: must be given, it has no default")
    return cls(**{k: convert(hints[k], v, f"{path}.{k}") for k, v in values.items()})


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` demands, or a `UserError` that says what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if type(value) is hint:
            return value
        return build(typing.cast(type, hint), value, path)
    if origin in (Union, types.UnionType):
        if type(value) in arguments and dataclasses.is_dataclass(value):
            return value
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            if type(None) in arguments:
                return None
            raise _wrong(path, "a value", value)
        return convert(next(a for a in arguments if a is not type(None)), value, path)
    if origin is Literal:
        if value not in arguments:
            names = [str(a) for a in arguments]
            raise UserError(f"{path}: {value!r} is not one of {', '.join(names)}")
        return value
    if origin is tuple:
        return _tuple(arguments[0], value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(path, "named groups of settings", value)
        return {name: convert(arguments[1], v, f"{path}.{name}") for name, v in value.items()}
    return _scalar(hint, value, path)


def _tuple(item: Any, value: Any, path: str) -> tuple:
    if isinstance(value, str):
        text = value.strip().removeprefix("(").removesuffix(")")
        values = _literal(value) if item is str else [v for v in text.split(",") if v.strip()]
        value = [values] if isinstance(values, str) else values
    if not isinstance(value, list | tuple):
        raise _wrong(path, f"several {item.__name__}s", value)
    return tuple(convert(item, v, f"{path}[{i}]") for i, v in enumerate(value))


def _scalar(hint: type, value: Any, path: str) -> Any:
    if hint is str:
        if not isinstance(value, str):
            raise _wrong(path, "text", value)
        return value
    if isinstance(value, str):
        words = {"true": True, "false": False}
        value = words.get(value.lower(), _literal(value))
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    raise _wrong(path, names[hint], value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text


def _wrong(path: str, expected: str, value: Any) -> UserError:
    return UserError(f"{path}: expected {expected}, got {value!r}")


def to_plain(value: Any) -> Any:
    """Dataclasses as nested dicts with lists for tuples: what `json.dump` takes."""
    if isinstance(value, dict):
        return {name: to_plain(v) for name, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_plain(v) for v in value]
    return value
