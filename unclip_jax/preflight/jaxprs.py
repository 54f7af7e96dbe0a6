"""Walking a traced program: which of its values depend on which arguments, and how often each
operation runs.

A program of JAX is a list of equations; some of them (jit, scan, cond, checkpoint …) hold programs
of their own. `walk` visits every equation that does arithmetic, and every block that the backward
pass computes again (`is_recomputed`) before what is inside it, with the number of times that it
runs and with marks: True for operands that depend on a marked argument of the whole program.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Marks = list[bool]
Visit = Callable[[Any, Marks, int], None]  # (equation, marks of its operands, how often it runs)


def walk(jaxpr: Jaxpr, marks: Sequence[bool], visit: Visit, times: int = 1) -> Marks:
    """Visits the equations of a program; returns the marks of its results.

    Loops of unknown length (`while`) and all branches of a `cond` count as run once.

    Args:
      marks: of the program's arguments.
    """
    known = dict(zip(jaxpr.invars, marks, strict=True))

    def of(atoms: Sequence[Any]) -> Marks:
        return [not isinstance(a, Literal) and known.get(a, False) for a in atoms]

    for equation in jaxpr.eqns:
        operands = of(equation.invars)
        known |= dict(
            zip(equation.outvars, _results(equation, operands, visit, times), strict=True)
        )
    return of(jaxpr.outvars)


def _results(equation: Any, operands: Marks, visit: Visit, times: int) -> Marks:
    """Marks of an equation's results; visits it, or the programs inside it."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(equation, operands, visit, times)
    bodies = list(_programs(params))
    if name == "cond":
        operands = operands[1:]
    elif name == "while":
        bodies, operands = [params["body_jaxpr"].jaxpr], operands[params["cond_nconsts"] :]
    elif name == "shard_map":
        times *= params["mesh"].size
    elif is_recomputed(equation):
        visit(equation, operands, times)
    matching = [program for program in bodies if len(program.invars) == len(operands)]
    if not matching:
        visit(equation, operands, times)
        return [any(operands)] * len(equation.outvars)
    found = [walk(program, operands, visit, times) for program in matching]
    return [any(each) for each in zip(*found, strict=True)]


def is_recomputed(equation: Any) -> bool:
    """Whether it is a block under `jax.checkpoint`; `body` is what it holds."""
    return equation.primitive.name in ("checkpoint", "remat", "remat2")


def equations(program: Jaxpr) -> Iterator[Any]:
    """All equations of a program and of those inside it."""
    for equation in program.eqns:
        yield equation
        for inner in _programs(equation.params):
            yield from equations(inner)


def body(equation: Any) -> Jaxpr:
    """The program inside an equation that has one."""
    return next(_programs(equation.params))


def _scan(equation: Any, operands: Marks, visit: Visit, times: int) -> Marks:
    """A loop of known length: marks of what it carries are iterated until they settle.

    A turn takes constants, what is carried, and slices; it returns what is carried, and slices.
    Which is which shows in the dimensions: versions of JAX name the counts differently.
    """
    params = equation.params
    turn = params["jaxpr"].jaxpr
    carried = sum(not _sliced(*pair) for pair in zip(equation.outvars, turn.outvars, strict=True))
    slices = sum(_sliced(*pair) for pair in zip(equation.invars, turn.invars, strict=True))
    consts = len(operands) - carried - slices
    state = operands[consts : consts + carried]
    for _ in range(carried + 1):
        inside = [*operands[:consts], *state, *operands[consts + carried :]]
        results = walk(turn, inside, lambda *_: None)
        grown = [a or b for a, b in zip(state, results[:carried], strict=True)]
        if grown == state:
            break
        state = grown
    return walk(turn, inside, visit, times * params["length"])


def _sliced(whole: Any, inside: Any) -> bool:
    """Whether a value of a loop's turn is a slice of the loop's, or all of it."""
    return len(whole.aval.shape) > len(inside.aval.shape)


def _programs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
