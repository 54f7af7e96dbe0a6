"""Parameter trees as safetensors files: one tensor per leaf, named by its path.

A tree larger than `max_bytes` is split over `STEM-00001-of-00003.safetensors` and so on, whole
tensors in the order of their paths; a tensor that is larger by itself has a file of its own.
"""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unclip_jax.core import trees
from unclip_jax.errors import UserError, did_you_mean
from unclip_jax.interop import int8
from unclip_jax.interop.manifest import FileEntry, file_entry

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
BUNDLE_DTYPES = (*DTYPES, "int8")  # others' formats know no int8
MAX_BYTES = 5 * 10**9


def check_dtype(name: str, known: Collection[str] = tuple(DTYPES)) -> None:
    """Raises `UserError` unless `name` is a dtype that weights are stored in."""
    if name not in known:
        raise UserError(f"can't store weights as {name!r}{did_you_mean(name, known)}")


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
    if dtype == "int8":
        flat = int8.quantize(flat)
    else:
        flat = {k: np.asarray(v).astype(DTYPES[dtype]) for k, v in flat.items()}
    parts = _save_parts(flat, folder, stem, max_bytes, "unclip_jax")
    return tuple(file_entry(path) for path in parts)


def save_indexed(
    state: Mapping[str, np.ndarray],
    folder: pathlib.Path,
    stem: str,
    *,
    dtype: str = "float32",
    max_bytes: int = MAX_BYTES,
) -> None:
    """Writes a state dict as PyTorch's libraries do: with an index if there are several files.

    Integers stay what they are.
    """
    state = {k: v.astype(DTYPES[dtype]) if v.dtype.kind == "f" else v for k, v in state.items()}
    parts = _save_parts(state, folder, stem, max_bytes, "pt")
    if len(parts) == 1:
        return
    total = sum(value.nbytes for value in state.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: path.name for path, names in parts.items() for name in names},
    }
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / f"{stem}.safetensors.index.json").write_text(text + "\n", encoding="utf-8")


def load_tree(folder: pathlib.Path, entries: Sequence[FileEntry]) -> dict[str, Any]:
    """The nested dict of float32 arrays that `save_tree` wrote.

    Raises:
      UserError: a file that is missing, or whose size or checksum is not the recorded one.
    """
    flat: dict[str, np.ndarray] = {}
    for entry in entries:
        flat |= _load(folder / entry.name, entry)
    flat = int8.dequantize(flat)
    return trees.unflatten({k: v.astype(np.float32, copy=False) for k, v in flat.items()})


def _save_parts(
    flat: Mapping[str, np.ndarray],
    folder: pathlib.Path,
    stem: str,
    max_bytes: int,
    written_by: str,
) -> dict[pathlib.Path, list[str]]:
    """{file: names of its tensors}, in order."""
    groups = _split(flat, max_bytes)
    parts = {}
    for i, group in enumerate(groups):
        part = f"-{i + 1:05d}-of-{len(groups):05d}" if len(groups) > 1 else ""
        path = folder / f"{stem}{part}.safetensors"
        # np.asarray(order="C") keeps scalars scalars, which ascontiguousarray does not.
        arrays = {k: np.asarray(flat[k], order="C") for k in group}
        save_file(arrays, path, metadata={"format": written_by})
        # safetensors lets only the owner read its files; they are as open as their folder.
        path.chmod(folder.stat().st_mode & 0o666)
        parts[path] = group
    return parts


def check_file(folder: pathlib.Path, entry: FileEntry) -> None:
    """Raises `UserError` unless a file is there with its recorded size and checksum."""
    path = folder / entry.name
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole bundle, or export it again")
    found = file_entry(path)
    if (found.bytes, found.sha256) != (entry.bytes, entry.sha256):
        raise UserError(
            f"{path} is altered: its size or SHA-256 is not the one in bundle.json; copy it anew"
        )


def _load(path: pathlib.Path, entry: FileEntry) -> dict[str, np.ndarray]:
    check_file(path.parent, entry)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None
    return tensors


def _split(flat: Mapping[str, np.ndarray], max_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = []
    room = 0
    for name, leaf in flat.items():
        if not groups or leaf.nbytes > room:
            groups.append([])
            room = max_bytes
        groups[-1].append(name)
        room -= leaf.nbytes
    return groups
