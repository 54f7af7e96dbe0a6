"""Choosing by name, from an explicit table or an enumeration, with errors that help."""

import enum
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unclip_jax.errors import UserError, did_you_mean

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


def parse(enumeration: type[E], kind: str, value: E | str) -> E:
    """The member of an enumeration, from itself or its value.

    Raises:
      UserError: no member has that value.
    """
    values = [member.value for member in enumeration]
    if isinstance(value, enumeration):
        return value
    if value not in values:
        raise UserError(f"unknown {kind} {value!r}{did_you_mean(str(value), values)}")
    return enumeration(value)


def build(
    table: Mapping[str, Callable[..., T]], kind: str, name: str, *args: Any, **options: Any
) -> T:
    """table[name](*args, **options), where options are the function's keyword-only arguments.

    Raises:
      UserError: a name that is not in the table, or an option the function has not.
    """
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}{did_you_mean(name, table)}")
    parameters = inspect.signature(table[name]).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option in options:
        if option not in known:
            raise UserError(
                f"{kind} {name!r} has no option {option!r}{did_you_mean(option, known)}"
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"{kind} {name!r} needs the option {option!r}")
    return table[name](*args, **options)
