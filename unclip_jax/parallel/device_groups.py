"""Which devices a collective of a compiled program joins, in the four ways that HLO writes it.

    replica_groups={{0,1},{2,3}}
    replica_groups=[2,2]<=[2,2]T(1,0)
    replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}
    source_target_pairs={{0,1},{1,2}}

The second numbers devices as a reshaped and transposed range; the third lays that range out as a
mesh and joins along the axes named last. Devices are positions in the mesh of the program.
"""

import math
import re

import numpy as np

_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_RANGE = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{(\{[^=]*?\})\}")


def device_groups(line: str) -> tuple[int, ...]:
    """The first group of an instruction, of the pairs all chained to the first; () if none is."""
    if match := _LISTED.search(line):
        return tuple(_numbers(match[1]))
    if match := _RANGE.search(line):
        ids = _range(match[3], match[4]).reshape(int(match[1]), int(match[2]))
        return tuple(int(i) for i in ids[0])
    if match := _MESH.search(line):
        return _of_mesh(match[1], match[2], match[3], match[4])
    if match := _PAIRS.search(line):
        return _chained([_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", match[1])])
    return ()


def _of_mesh(axes: str, dims: str | None, order: str | None, joined: str) -> tuple[int, ...]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
    count = math.prod(sizes.values())
    ids = _range(dims or str(count), order).reshape(tuple(sizes.values()))
    along = re.findall(r"'([^']*)'", joined)
    picked = tuple(slice(None) if name in along else 0 for name in sizes)
    return tuple(sorted(int(i) for i in np.ravel(ids[picked])))


def _range(dims: str, order: str | None) -> np.ndarray:
    shape = _numbers(dims)
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose(_numbers(order)) if order else ids


def _chained(pairs: list[list[int]]) -> tuple[int, ...]:
    targets = {pair[0]: pair[1] for pair in pairs}
    group = [pairs[0][0]]
    while (following := targets.get(group[-1])) is not None and following not in group:
        group.append(following)
    return tuple(sorted(group))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]
