"""What a compiled program sends between devices: collectives by kind and bytes, from its HLO text.

Bytes are those of one device's result (of its argument, for a reduce-scatter): the size of the
array that is summed, gathered or exchanged. A collective inside a loop is counted once, with
`in_loop` set, since the text does not say how often a loop turns.

The CPU's compiler promotes bfloat16 collectives to float32 and has no reduce-scatter: it sums the
whole array and takes a slice. Read numbers from a CPU program as such.
"""

import dataclasses
import re
from collections import Counter

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of `KINDS`.
      shapes: of the arrays in its result, such as ("f32[64,32]",).
      bytes: of these together.
      in_loop: whether a loop of the program contains it.
      source: the operation of the model that it comes from, as the compiler recorded it.
    """

    kind: str
    shapes: tuple[str, ...]
    bytes: int
    in_loop: bool
    source: str


def collectives(hlo: str) -> list[Collective]:
    """All collectives of a compiled program's text (`compiled.as_text()`)."""
    bodies = _computations(hlo)
    looped = _reached(bodies, {c for lines in bodies.values() for c in _loop_parts(lines)})
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _INSTRUCTION.match(line)
            if match:
                shapes = _ARRAY.findall(match[1])
                if "-start(" in line and len(shapes) > 1:
                    shapes = shapes[len(shapes) // 2 :]  # (arguments, results)
                source = re.search(r'op_name="([^"]*)"', line)
                found.append(
                    Collective(
                        kind=match[2],
                        shapes=tuple(f"{dtype}[{dims}]" for dtype, dims in shapes),
                        bytes=sum(_size(*shape) for shape in shapes),
                        in_loop=name in looped,
                        source=source[1] if source else "",
                    )
                )
    return found


def bytes_by_kind(found: list[Collective]) -> dict[str, int]:
    """{kind: bytes} over all collectives given."""
    total: Counter[str] = Counter()
    for collective in found:
        total[collective.kind] += collective.bytes
    return dict(total)


def _computations(hlo: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            lines = bodies.setdefault(header[1], [])
        else:
            lines.append(line)
    return bodies


def _loop_parts(lines: list[str]) -> set[str]:
    return {name for line in lines if " while(" in line for name in _CALLED.findall(line)}


def _reached(bodies: dict[str, list[str]], start: set[str]) -> set[str]:
    seen, todo = set(start), list(start)
    while todo:
        for line in bodies.get(todo.pop(), []):
            new = set(_CALLED.findall(line)) - seen
            seen |= new
            todo += new
    return seen


def _size(dtype: str, dims: str) -> int:
    count = 1
    for dim in filter(None, dims.split(",")):
        count *= int(dim)
    bits = _BITS.search(dtype)
    return count * (int(bits[0]) if bits else 8) // 8
