"""Parameter trees as safetensors files: one tensor per leaf, named by its path.

A tree larger than `max_bytes` is split over `STEM-00001-of-00003.safetensors` and so on, whole
tensors in the order of their paths; a tensor that is larger by itself has a file of its own.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unclip_jax.core import trees
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.interop.manifest import FileEntry, file_entry

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
MAX_BYTES = 5 * 10**9


def check_dtype(name: str) -> None:
    """Raises `UserError` unless `name` is a dtype that weights are stored in."""
    if name not in DTYPES:
        raise UserError(f"can't store weights as {name!r}{did_you_mean(name, DTYPES)}")


def save_tree(
    tree: Mapping[str, Any],
    folder: pathlib.Path,
    stem: str,
    *,
    dtype: str = "float32",
    max_bytes: int = MAX_BYTES,
) -> tuple[FileEntry, ...]:
    """Writes a nested dict of arrays, cast to `dtype`; returns the files in order."""
    flat = trees.flatten(tree)
    groups = _split(flat, DTYPES[dtype].itemsize, max_bytes)
    entries = []
    for i, group in enumerate(groups):
        part = f"-{i + 1:05d}-of-{len(groups):05d}" if len(groups) > 1 else ""
        path = folder / f"{stem}{part}.safetensors"
        # np.asarray(order="C") keeps scalars scalars, which ascontiguousarray does not.
        arrays = {k: np.asarray(flat[k], order="C").astype(DTYPES[dtype]) for k in group}
        save_file(arrays, path, metadata={"format": "unclip_jax"})
        # safetensors lets only the owner read its files; a bundle is as open as its folder.
        path.chmod(folder.stat().st_mode & 0o666)
        entries.append(file_entry(path))
    return tuple(entries)


def load_tree(folder: pathlib.Path, entries: Sequence[FileEntry]) -> dict[str, Any]:
    """The nested dict of float32 arrays that `save_tree` wrote.

    Raises:
      UserError: a file that is missing, or whose size or checksum is not the recorded one.
    """
    flat: dict[str, np.ndarray] = {}
    for entry in entries:
        flat |= _load(folder / entry.name, entry)
    return trees.unflatten(flat)


def _load(path: pathlib.Path, entry: FileEntry) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole bundle, or export it again")
    if path.stat().st_size != entry.bytes or file_entry(path) != entry:
        raise UserError(
            f"{path} is altered: its size or SHA-256 is not the one in bundle.json; copy it anew"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}


def _split(flat: Mapping[str, Any], itemsize: int, max_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = []
    room = 0
    for name, leaf in flat.items():
        size = leaf.size * itemsize
        if not groups or size > room:
            groups.append([])
            room = max_bytes
        groups[-1].append(name)
        room -= size
    return groups
