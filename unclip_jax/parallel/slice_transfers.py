"""Collectives between TPU slices, which libtpu writes as host transfers and not as collectives:

    send(…), is_host_transfer=true, frontend_attributes={
        _xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}

joins each of the 4 devices of slice 1 with the one in its place in slice 2. Slices lie one after
the other in the mesh (`parallel.mesh`).
"""

import re

_SENT = re.compile(
    r' send\(.*_xla_megascale_target="\{([\d,:]+)\}x\{([\d,:]+)\}"'
    r'.*_xla_megascale_transfer_type="([A-Z_]+)"'
)


def across_slices(line: str) -> tuple[str, tuple[int, ...]] | None:
    """(kind as HLO names it, the first device's group) of a transfer between slices."""
    match = _SENT.search(line)
    if match is None:
        return None
    slices, devices = _count(match[1]), _count(match[2])
    kind = match[3].lower().replace("_", "-")
    return kind, tuple(i * devices for i in range(slices))


def _count(numbers: str) -> int:
    """Of '0,2' 2, of '0:3' 4."""
    ends = ([int(n) for n in part.split(":")] for part in numbers.split(","))
    return sum(part[-1] - part[0] + 1 for part in ends)
