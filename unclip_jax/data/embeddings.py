"""CLIP embeddings beside the shards: row i of the side-car belongs to sample i of the tar.

`00000.tar` has `00000.image_embedding.npy` (float16 or float32 [n, D]) and, written last,
`00000.image_embedding.json` that says which model made them, whether rows are L2-normalised, and
which tar they belong to. Rows count every sample of the index, bad ones included, so that ordinals
agree; a sample that could not be embedded has a row of NaN (or zeros).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unclip_jax.data.fields import EMBEDDING_KINDS
from unclip_jax.data.index import Summary
from unclip_jax.errors import UserError


@dataclass(frozen=True)
class Provenance:
    """Which network made the embeddings: rows of different provenance must never be mixed.

    Attributes:
      model: name of the network, for people.
      model_hash: digest of its parameters, for comparison.
      normalised: whether rows have L2 norm 1.
    """

    model: str
    model_hash: str
    normalised: bool


@dataclass(frozen=True)
class SideCar:
    """One opened side-car: `rows` is memory-mapped [count, width]."""

    path: Path
    provenance: Provenance
    rows: np.ndarray


def side_car_path(shard: str | Path, kind: str) -> Path:
    """Returns where the `kind` ("image" or "text") embeddings of a shard lie."""
    if kind not in EMBEDDING_KINDS:
        raise UserError(f"embedding kind {kind!r} is not one of {EMBEDDING_KINDS}")
    return Path(shard).with_suffix(f".{kind}_embedding.npy")


def open_side_car(shard: str | Path, summary: Summary, kind: str) -> SideCar:
    """Opens the side-car of one shard. Raises UserError if it is missing or not this shard's."""
    path = side_car_path(shard, kind)
    description = path.with_suffix(".json")
    if not description.exists() or not path.exists():
        raise UserError(f"{shard}: no {kind} embeddings ({path.name}); run `unclip embed` first")
    header = json.loads(description.read_text())
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = (header["count"], header["width"])
    if rows.shape != shape or rows.dtype.name != header["dtype"]:
        raise UserError(f"{path}: holds {rows.dtype} {rows.shape} but is described as {shape}")
    if (header["count"], header["tar_bytes"]) != (summary.samples, summary.tar_bytes):
        raise UserError(
            f"{path}: made for a tar of {header['count']} samples and {header['tar_bytes']} bytes, "
            f"but {shard} has {summary.samples} and {summary.tar_bytes}; run `unclip embed` again"
        )
    provenance = Provenance(header["model"], header["model_hash"], header["normalised"])
    return SideCar(path, provenance, rows)


def check_side_cars(cars: Sequence[SideCar], kind: str) -> None:
    """Raises UserError unless all have one width and one provenance."""
    first = cars[0]
    for car in cars:
        if car.rows.shape[1] != first.rows.shape[1]:
            raise UserError(
                f"{car.path}: {kind} embeddings of width {car.rows.shape[1]}, but "
                f"{first.path.name} has {first.rows.shape[1]}; embed all shards with one model"
            )
        if car.provenance != first.provenance:
            raise UserError(
                f"{car.path}: made by {car.provenance}, but {first.path.name} by "
                f"{first.provenance}; embed all shards with one model"
            )


def present(rows: Float[np.ndarray, "n D"]) -> np.ndarray:
    """Returns bool [n]: which rows hold an embedding (finite and not all zero)."""
    return np.isfinite(rows).all(axis=-1) & (rows != 0).any(axis=-1)


def statistics(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (mean [D], standard deviation [D], rows counted), in float64 over present rows.

    One pass with Chan's update of (count, mean, sum of squares), so a part may be a memory map.
    """
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        for start in range(0, len(part), 65536):
            rows = np.asarray(part[start : start + 65536], np.float64)
            rows = rows[present(rows)]
            if not len(rows):
                continue
            own_mean = rows.mean(axis=0)
            delta = own_mean - mean
            total = count + len(rows)
            squares = squares + ((rows - own_mean) ** 2).sum(axis=0)
            squares = squares + delta**2 * count * len(rows) / total
            mean = mean + delta * len(rows) / total
            count = total
    if not count:
        raise UserError("no embeddings to take statistics of: every row is missing")
    return np.asarray(mean), np.sqrt(squares / count), count
