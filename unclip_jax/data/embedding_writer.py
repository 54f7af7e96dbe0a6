"""Writing the embeddings of a shard beside it, whole or not at all; read by `embeddings`."""

import io
import json
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unclip_jax.data.catalog import summarise
from unclip_jax.data.embeddings import Provenance, side_car_path
from unclip_jax.data.storage import remove_file, write_file
from unclip_jax.errors import UserError

_DTYPES = ("float16", "float32")


def write_embeddings(
    shard: str | Path,
    kind: str,
    array: Float[np.ndarray, "n D"],
    provenance: Provenance,
    index_dir: str | None = None,
    item_shape: tuple[int, ...] = (),
) -> str:
    """Writes the side-car of one shard, whole or not at all, and returns its path.

    Args:
      shard: path of the tar.
      kind: "image", "text" or "text_states".
      array: one row per sample in the tar's order, NaN where there is no embedding.
      item_shape: what a row holds if that is no vector: (L, W) for states of L · W numbers.

    Raises:
      UserError: the number of rows is not the number of samples, or the dtype is not supported.
    """
    path = side_car_path(str(shard), kind)
    tar = summarise(shard, index_dir)
    summary = tar.summary
    if array.ndim != 2 or len(array) != summary.samples:
        raise UserError(
            f"{path}: {array.shape} rows for {summary.samples} samples; write one row per sample"
        )
    if array.dtype.name not in _DTYPES:
        raise UserError(f"{path}: dtype {array.dtype} is not one of {', '.join(_DTYPES)}")
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    header = {
        **asdict(provenance),
        "dtype": array.dtype.name,
        "width": array.shape[1],
        "count": len(array),
        **({"shape": item_shape} if item_shape else {}),
        "tar_bytes": summary.tar_bytes,
        "keys": [tar.read(ordinal)[0] for ordinal in (0, len(array) - 1)] if len(array) else [],
        "crc": zlib.crc32(content),
    }
    description = path.removesuffix(".npy") + ".json"
    remove_file(description)  # a kill between the two writes leaves no valid pair
    write_file(path, content)
    write_file(description, json.dumps(header, indent=1).encode())
    return path
