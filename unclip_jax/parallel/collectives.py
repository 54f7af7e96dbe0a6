"""What a compiled program sends between devices: collectives by kind and bytes, from its HLO text.

Bytes are those of one device's result (of its argument, for a reduce-scatter): the size of the
array that is summed, gathered or exchanged, each time that it is. Loops are entered as often as
their condition says, `i < constant`; a loop of unknown length counts once.

The CPU's compiler promotes bfloat16 collectives to float32 and has no reduce-scatter: it sums the
whole array and takes a slice. Read numbers from a CPU program as such. The TPU's compiler spreads a
collective over several fusions to overlap it with arithmetic; the parts share a channel and count
as one. Its fused sum and slice ("all-reduce-scatter") is a reduce-scatter. Between slices it sends
by way of their hosts (`slice_transfers`).
"""

import dataclasses
import re
from collections import Counter

from unclip_jax.parallel.device_groups import device_groups
from unclip_jax.parallel.slice_transfers import across_slices

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|condition|calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r" [su]\d+\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SUM_AND_SLICE = "all-reduce-scatter"
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
      times: how often it runs.
      group: devices that exchange with the first one, by their positions in the mesh; () is all.
    """

    kind: str
    shapes: tuple[str, ...]
    bytes: int
    in_loop: bool
    source: str
    times: int = 1
    group: tuple[int, ...] = ()


def collectives(hlo: str) -> list[Collective]:
    """All collectives of a compiled program's text (`compiled.as_text()`)."""
    bodies = _computations(hlo)
    looped = _reached(bodies, {c for lines in bodies.values() for c in _loop_parts(lines)})
    turns = _turns(bodies)
    found: dict[str, Collective] = {}
    for name, lines in bodies.items():
        for number, line in enumerate(lines):
            read = _read(line, name)
            if read is None:
                continue
            kind, shapes, group = read
            channel, source = _CHANNEL.search(line), re.search(r'op_name="([^"]*)"', line)
            key = f"{kind} {channel[1]}" if channel else f"{name} {number}"
            found.setdefault(
                key,
                Collective(
                    kind=kind,
                    shapes=tuple(f"{dtype}[{dims}]" for dtype, dims in shapes),
                    bytes=sum(_size(*shape) for shape in shapes),
                    in_loop=name in looped,
                    source=source[1] if source else "",
                    times=turns.get(name, 1),
                    group=group,
                ),
            )
    return list(found.values())


def _read(line: str, computation: str) -> tuple[str, list[tuple[str, str]], tuple[int, ...]] | None:
    """(kind, arrays in the result, group) of an instruction, if it is a collective."""
    across = across_slices(line)
    if across is not None:
        return across[0], _ARRAY.findall(line.partition(" send(")[0])[:1], across[1]
    match = _INSTRUCTION.match(line)
    if not match:
        return None
    kind, shapes = match[2], _ARRAY.findall(match[1])
    if computation.startswith(_SUM_AND_SLICE):
        kind = "reduce-scatter"
    if kind == "collective-permute":
        shapes = [shape for shape in shapes if shape[1]]  # without its handles, u32[]
    if "-start(" in line and len(shapes) > 1:
        shapes = shapes[len(shapes) // 2 :]  # (arguments, results)
    return kind, shapes, device_groups(line)


def bytes_by_kind(found: list[Collective]) -> dict[str, int]:
    """{kind: bytes} over all collectives given, each once."""
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


def _turns(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation inside loops runs: loops within loops multiply."""
    times: Counter[str] = Counter()
    for lines in bodies.values():
        for line in lines:
            body = _BODY.search(line) if " while(" in line else None
            if body:
                length = _length(line, bodies)
                for inside in _reached(bodies, {body[1]}):
                    times[inside] = times.get(inside, 1) * length
    return dict(times)


def _length(loop: str, bodies: dict[str, list[str]]) -> int:
    known = _KNOWN_TRIPS.search(loop)
    if known:
        return int(known[1])
    condition = _CONDITION.search(loop)
    lines = bodies.get(condition[1], []) if condition else []
    bounds = {int(n) for line in lines for n in _CONSTANT.findall(line)}
    counts_up = any("direction=LT" in line for line in lines)
    return bounds.pop() if counts_up and len(bounds) == 1 else 1


def _size(dtype: str, dims: str) -> int:
    count = 1
    for dim in filter(None, dims.split(",")):
        count *= int(dim)
    bits = _BITS.search(dtype)
    return count * (int(bits[0]) if bits else 8) // 8
