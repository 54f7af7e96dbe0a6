"""CLIP embeddings of the samples of a shard: row i belongs to sample i.

Three forms are read: side-cars beside a tar, which `unclip embed` writes; members of the tar's
samples (`000012.img_emb.npy`); clip-retrieval folders (`clip_retrieval.py`).

A side-car is `00000.image_embedding.npy` (float16 or float32 [n, D]) beside `00000.tar` and,
written last, `00000.image_embedding.json`, which says which model made the rows, whether they are
L2-normalised, and which tar they belong to. Rows count every sample of the index, bad ones
included, so that ordinals agree; a sample that could not be embedded has a row of NaN (or zeros).
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Float, Int

from unclip_jax.data.fields import EMBEDDING_KINDS, stored_name
from unclip_jax.data.index import Summary
from unclip_jax.data.rows_file import open_rows
from unclip_jax.data.storage import ShardError, read_file
from unclip_jax.errors import UserError

MEMBERS: dict[str, tuple[str, ...]] = {
    "image": ("img_emb.npy", "image_embedding.npy", "npy"),
    "text": ("text_emb.npy", "text_embedding.npy"),
    "text_states": (),
}
_UNIT_TOLERANCE = 0.02  # of the norm; rounding to float16 moves it by less than 0.001
_PROBED_SHARDS, _PROBED_ROWS = 4, 64
T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """Which network made the embeddings: rows of different provenance must never be mixed.

    Attributes:
      model: name of the network, for people.
      model_hash: digest of its parameters, for comparison; "unknown" if nobody says.
      normalised: whether rows have L2 norm 1.
    """

    model: str
    model_hash: str
    normalised: bool


class EmbeddingRows(Protocol):
    """rows[ordinals] and rows[i:j] -> floating-point [n, D]."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]: ...


@dataclass(frozen=True)
class SideCar:
    """The embeddings of one shard."""

    path: str
    provenance: Provenance
    rows: EmbeddingRows
    item_shape: tuple[int, ...] = ()  # of what a row holds, if that is no vector
    keys: tuple[str, ...] = ()  # of the first and the last sample, if known

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's array."""
        return self.item_shape or (self.rows.shape[1],)


def side_car_path(shard: str, kind: str) -> str:
    """Returns where the `kind` embeddings of a shard lie."""
    if kind not in EMBEDDING_KINDS:
        raise UserError(f"embedding kind {kind!r} is not one of {EMBEDDING_KINDS}")
    return f"{str(shard).removesuffix('.tar')}.{stored_name(kind)}.npy"


def open_side_car(shard: str, summary: Summary, kind: str) -> SideCar:
    """Opens the side-car of one shard. Raises UserError if it is missing or not this shard's."""
    path = side_car_path(shard, kind)
    description = read_file(path.removesuffix(".npy") + ".json")
    if description is None:
        raise UserError(f"{shard}: no {kind} embeddings ({path}); run `unclip embed` first")
    header = json.loads(description)
    rows = open_rows(path)
    shape = (header["count"], header["width"])
    if rows.shape != shape or rows.dtype.name != header["dtype"]:
        raise UserError(f"{path}: holds {rows.dtype} {rows.shape} but is described as {shape}")
    if (header["count"], header["tar_bytes"]) != (summary.samples, summary.tar_bytes):
        raise UserError(
            f"{path}: made for a tar of {header['count']} samples and {header['tar_bytes']} bytes, "
            f"but {shard} has {summary.samples} and {summary.tar_bytes}; run `unclip embed` again"
        )
    item_shape, keys = tuple(header.get("shape", ())), tuple(header.get("keys", ()))
    return SideCar(path, _provenance(header, path), rows, item_shape, keys)


@dataclass(frozen=True)
class MemberRows:
    """Embeddings that are members of the samples: `read` gives an .npy's bytes, or None."""

    read: Callable[[int], bytes | memoryview | None]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]:
        ordinals = range(*key.indices(len(self))) if isinstance(key, slice) else key.tolist()
        out = np.full((len(ordinals), self.shape[1]), np.nan, np.float32)
        for row, ordinal in enumerate(ordinals):
            content = self.read(ordinal)
            if content is not None:
                out[row] = _vector(content, self.shape[1], ordinal)
        return out


def open_member_rows(
    shard: str, samples: int, read: Callable[[int], bytes | memoryview | None]
) -> SideCar:
    """Opens the embeddings inside a tar; the first that there is tells the width."""
    first = next((content for i in range(samples) if (content := read(i)) is not None), None)
    if first is None:
        raise UserError(f"{shard}: no sample has an embedding")
    rows = MemberRows(read, (samples, len(_vector(first, None, 0))))
    return SideCar(shard, folder_provenance(shard.rpartition("/")[0] or "."), rows)


def folder_provenance(folder: str, otherwise: str = "unknown") -> Provenance:
    """Returns what `provenance.json` in a folder says of embeddings without a description."""
    path = f"{folder}/provenance.json"
    content = read_file(path)
    if content is None:
        return Provenance(otherwise, "unknown", normalised=True)
    return _provenance(json.loads(content), path)


def check_side_cars(cars: Sequence[SideCar], kind: str) -> None:
    """Raises UserError unless all have one width, one provenance, and the norm that it tells."""
    first = cars[0]
    for car in cars:
        if car.shape != first.shape:
            raise UserError(
                f"{car.path}: {kind} embeddings of width {car.shape[-1]}, but "
                f"{first.path} has {first.shape[-1]}; embed all shards with one model"
            )
        if car.provenance != first.provenance:
            raise UserError(
                f"{car.path}: made by {car.provenance}, but {first.path} by "
                f"{first.provenance}; embed all shards with one model"
            )
    for car in () if first.item_shape else probed(cars):
        _check_norm(car)


def probed(items: Sequence[T]) -> Sequence[T]:
    """A few of many, spread over all: what is looked into before a run starts."""
    return items[:: -(-len(items) // _PROBED_SHARDS)]


def check_keys(car: SideCar, read: Callable[[int], tuple[str, object]]) -> None:
    """Raises UserError if the rows were made for other samples, or for these in another order.

    `read` gives (key, members) of a sample.
    """
    for ordinal, key in zip((0, len(car.rows) - 1), car.keys, strict=False):
        found, _ = read(ordinal)
        if found != key:
            raise UserError(
                f"{car.path}: row {ordinal} is of sample {key!r}, but the shard has {found!r} "
                "there; run `unclip embed` again"
            )


def present(rows: Float[np.ndarray, "n D"]) -> np.ndarray:
    """Returns bool [n]: which rows hold an embedding (finite and not all zero)."""
    return np.isfinite(rows).all(axis=-1) & (rows != 0).any(axis=-1)


def _check_norm(car: SideCar) -> None:
    rows = np.asarray(car.rows[:_PROBED_ROWS], np.float32)
    rows = rows[present(rows)]
    if not len(rows):
        return
    unit = np.abs(np.linalg.norm(rows, axis=1) - 1) < _UNIT_TOLERANCE
    if car.provenance.normalised and not unit.all():
        raise UserError(f"{car.path}: described as normalised, but its rows have not norm 1")
    if not car.provenance.normalised and len(rows) > 1 and unit.all():
        raise UserError(f"{car.path}: described as not normalised, but its rows have norm 1")


def _provenance(values: dict, path: str) -> Provenance:
    try:
        return Provenance(values["model"], values["model_hash"], values["normalised"])
    except (KeyError, TypeError):
        raise UserError(f"{path}: needs model, model_hash and normalised") from None


def _vector(content: bytes | memoryview, width: int | None, ordinal: int) -> np.ndarray:
    try:
        vector = np.load(io.BytesIO(content), allow_pickle=False).ravel()
    except (ValueError, EOFError):
        return np.full(width or 0, np.nan, np.float32)
    if width is not None and len(vector) != width:
        raise ShardError(f"sample {ordinal} has an embedding of width {len(vector)}, not {width}")
    return vector
