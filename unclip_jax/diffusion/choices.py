"""Building one of several named things from an explicit table, with errors that help."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unclip_jax.errors import UserError, did_you_mean

T = TypeVar("T")


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
