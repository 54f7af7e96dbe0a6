"""Which tensor of a foreign file is which parameter of ours: one `Entry` per parameter, both ways.

PyTorch stores linear weights [out, in] and convolutions [out, in, height, width]; ours are
[in, out] and [height, width, in, out]. We keep q, k and v of a transformer in one array [in, 3,
out]; others have three, or one that is [3 out, in]. Some store a vector or a table with leading
axes of length 1.

Every tensor of a file must be known and every parameter must be there, in its shape: anything else
is a `UserError`, since a network that is half loaded still returns plausible numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unclip_jax.core import trees
from unclip_jax.errors import UserError

StateDict = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

_TO_OURS = {"linear": (1, 0), "conv": (2, 3, 1, 0)}
_TO_THEIRS = {"linear": (1, 0), "conv": (3, 2, 0, 1)}


@dataclass(frozen=True)
class Entry:
    """One parameter of ours and where it is stored.

    Attributes:
      ours: path of the parameter.
      theirs: one tensor, or three (q, k, v) that follow each other along their output axis.
      layout: "same", "linear" ([out, in] there) or "conv" ([out, in, h, w] there).
      fused: q, k and v in one: the last axis is split in [3, out] here.
      leading: how many axes of length 1 they put before ours.
    """

    ours: str
    theirs: tuple[str, ...]
    layout: str = "same"
    fused: bool = False
    leading: int = 0

    def to_ours(self, state: StateDict) -> np.ndarray:
        """The parameter, float32, in our layout."""
        parts = [np.asarray(state[k], np.float32) for k in self.theirs]
        value = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.leading:
            if value.shape[: self.leading] != (1,) * self.leading:
                raise UserError(f"{self.theirs[0]} has shape {value.shape}, not one row of it")
            value = value.reshape(value.shape[self.leading :])
        axes = _TO_OURS.get(self.layout, range(value.ndim))
        if len(axes) != value.ndim:
            raise UserError(f"{self.theirs[0]} has {value.ndim} dimensions, expected {len(axes)}")
        value = value.transpose(*axes)
        return value.reshape(*value.shape[:-1], 3, -1) if self.fused else value

    def to_theirs(self, value: np.ndarray) -> dict[str, np.ndarray]:
        """Their tensors of a parameter."""
        if self.fused:
            value = value.reshape(*value.shape[:-2], -1)
        axes = _TO_THEIRS.get(self.layout, range(value.ndim))
        value = np.array(value.transpose(*axes), order="C")  # safetensors writes memory as it lies
        parts = [value] if len(self.theirs) == 1 else np.split(value, len(self.theirs))
        named = zip(self.theirs, parts, strict=True)
        return {name: part.reshape((1,) * self.leading + part.shape) for name, part in named}


def to_ours(
    entries: Sequence[Entry], state: StateDict, shapes: Shapes, what: str
) -> dict[str, Any]:
    """Our parameters, a nested dict of float32 arrays.

    Args:
      shapes: {path: shape} of every parameter.
      what: the network that the weights should be of, for errors.

    Raises:
      UserError: unknown, missing or misshapen tensors.
    """
    check_names(set(state), {name for entry in entries for name in entry.theirs}, what)
    flat = {}
    for entry in entries:
        value, wanted = entry.to_ours(state), shapes[entry.ours]
        if value.shape != wanted and not (value.size == 1 and wanted == ()):
            raise UserError(
                f"{entry.theirs[0]} makes {entry.ours} {value.shape}, but in this {what} it is "
                f"{wanted}: its sizes are not those that the weights were trained with"
            )
        flat[entry.ours] = value.reshape(wanted)
    return trees.unflatten(flat)


def to_theirs(entries: Iterable[Entry], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`: a float32 state dict."""
    flat = trees.flatten(params)
    state: dict[str, np.ndarray] = {}
    for entry in entries:
        state |= entry.to_theirs(np.asarray(flat[entry.ours], np.float32))
    return state


def check_names(found: set[str], expected: set[str], what: str) -> None:
    """Raises `UserError` unless the tensors that were found are those that were expected."""
    unknown, missing = sorted(found - expected), sorted(expected - found)
    if not unknown and not missing:
        return
    parts = [
        f"{len(names)} {which} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for which, names in (("unknown", unknown), ("missing", missing))
        if names
    ]
    raise UserError(
        f"these are not the weights of this {what}: {' and '.join(parts)} tensors; check its "
        "number of layers and which parts of it the file holds"
    )


def norm(ours: str, theirs: str) -> list[Entry]:
    """A layer or group norm's scale and bias."""
    return [
        Entry(f"{ours}/scale", (f"{theirs}.weight",)),
        Entry(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def linear(ours: str, *theirs: str) -> list[Entry]:
    """A dense layer's kernel and bias; three of theirs for one of ours."""
    fused = len(theirs) == 3
    return [
        Entry(f"{ours}/kernel", tuple(f"{t}.weight" for t in theirs), "linear", fused),
        Entry(f"{ours}/bias", tuple(f"{t}.bias" for t in theirs), fused=fused),
    ]
