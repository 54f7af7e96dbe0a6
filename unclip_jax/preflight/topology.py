"""The machine that a plan is for: chips, how they are joined, and how fast a mesh axis is on them.

v5p:4x4x4   64 chips of one TPU slice, a torus of 4 x 4 x 4; several slices share a network
8 x H100    GPUs, 8 a host joined by switches, hosts by the network
"""

import math
import re
from dataclasses import dataclass

from unclip_jax.errors import UserError
from unclip_jax.preflight.chips import Chip, gpu, tpu

_NAME = re.compile(r"([a-z0-9]+):(\d+(?:x\d+){0,2})")


@dataclass(frozen=True)
class Topology:
    """Chips of one kind.

    Attributes:
      sides: of a slice's torus; of GPUs just their number.
      slices: how many such slices.
    """

    chip: Chip
    sides: tuple[int, ...]
    slices: int = 1

    @property
    def is_tpu(self) -> bool:
        """Whether it is one that libtpu can compile for."""
        return bool(self.chip.ring)

    @property
    def slice_name(self) -> str:
        """As libtpu names one slice."""
        return f"{self.chip.name}:{'x'.join(map(str, self.sides))}"

    @property
    def name(self) -> str:
        """'2 x v5p:4x4x4', 'v5e:4x4' or '8 x H100'."""
        if not self.is_tpu:
            return f"{self.chips} x {self.chip.name}"
        return f"{self.slices} x {self.slice_name}" if self.slices > 1 else self.slice_name

    @property
    def chips(self) -> int:
        """All chips; each is one device."""
        return math.prod(self.sides) * self.slices

    @property
    def fast(self) -> float:
        """Bytes/s that one chip sends over its own links, all axes of the torus in use."""
        if not self.is_tpu:
            return self.chip.link
        ways = [2 if side % self.chip.ring == 0 else 1 for side in self.sides if side > 1]
        return self.chip.link * max(1, sum(ways))

    @property
    def island(self) -> int:
        """Chips that reach each other without the network: of a slice, of a GPU host."""
        return self.chips // self.slices if self.is_tpu else min(self.chips, self.chip.host)


def tpu_topology(text: str, slices: int = 1) -> Topology:
    """The topology that 'v5p:4x4x4' names.

    Raises:
      UserError: for an unknown generation, or a shape that it does not come in.
    """
    match = _NAME.fullmatch(text)
    if not match:
        raise UserError(f"--topology {text!r}: is not GENERATION:AxB or AxBxC, such as v5p:4x4x4")
    chip = tpu(match[1])
    sides = tuple(map(int, match[2].split("x")))
    wanted = 3 if chip.ring == 4 else 2  # the generations with rings of 4 are three-dimensional
    if len(sides) != wanted or 0 in sides:
        example = "2x2x1" if wanted == 3 else "2x2"
        raise UserError(
            f"--topology {text!r}: a {chip.name} slice has {wanted} sides, such as "
            f"{chip.name}:{example}"
        )
    return Topology(chip, sides, slices)


def gpu_topology(count: int, name: str, hbm_gb: float | None) -> Topology:
    """`count` GPUs, 8 on a host."""
    return Topology(gpu(name, hbm_gb), (count,))
