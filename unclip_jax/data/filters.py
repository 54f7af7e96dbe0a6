"""Choosing samples by their json: `aesthetic >= 5`, `width >= 256`, `status == "success"`.

Filters are evaluated when a data set is opened, once for each shard (the result is kept beside the
index), never while reading: the list of samples, and so the order, is fixed before training. A
sample whose json is missing, broken or without the key does not pass.

The filter `clean` keeps the samples in which `unclip data lint --content` found nothing bad.
"""

import hashlib
import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.catalog import Shard
from unclip_jax.data.files import replace_file
from unclip_jax.errors import UserError

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
CLEAN = "clean"
_FORM = re.compile(r"\s*([\w.\-]+)\s*(>=|<=|==|!=|>|<)\s*([^\s=].*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Filter:
    """`key` (dots go into nested objects) compared with a json value."""

    key: str
    comparison: str
    value: Any

    def passes(self, record: Any) -> bool:
        for part in self.key.split("."):
            if not isinstance(record, dict) or part not in record:
                return False
            record = record[part]
        if self.comparison in ("==", "!="):
            return _OPERATORS[self.comparison](record, self.value)
        comparable = _is_number(record) and _is_number(self.value)
        comparable = comparable or (isinstance(record, str) and isinstance(self.value, str))
        return comparable and _OPERATORS[self.comparison](record, self.value)


def parse_filter(text: str) -> Filter:
    """Reads `key OPERATOR value`; the value is json, or a bare word. Raises UserError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UserError(f"filter {text!r}: write it as 'key >= value', with one of >= <= == != > <")
    key, comparison, value = match.groups()
    try:
        return Filter(key, comparison, json.loads(value))
    except ValueError:
        return Filter(key, comparison, value)


def keep_mask(shard: Shard, where: Sequence[str]) -> NDArray[np.bool_]:
    """Returns which samples of a shard pass all filters, bool [n]; remembered beside the index.

    Raises UserError if `clean` is among them and nobody has looked.
    """
    count = shard.summary.samples
    keep = np.ones(count, bool)
    filters = [parse_filter(text) for text in where if text.strip() != CLEAN]
    if filters:
        kept = _recall(shard, str(filters))
        if kept is None:
            kept = np.array([_passes(shard, ordinal, filters) for ordinal in range(count)], bool)
            remember(shard, str(filters), kept)
        keep &= kept
    if len(filters) < len(where):
        clean = _recall(shard, CLEAN)
        if clean is None:
            raise UserError(f"{shard.path}: the filter 'clean' needs `unclip data lint --content`")
        keep &= clean
    return keep


def remember(shard: Shard, name: str, keep: NDArray[np.bool_]) -> None:
    """Keeps a mask beside the index, if the shard has a place there."""
    path, digest = _place(shard, name)
    if path is not None and path.parent.is_dir():
        replace_file(path, digest + np.packbits(keep).tobytes())


def _recall(shard: Shard, name: str) -> NDArray[np.bool_] | None:
    path, digest = _place(shard, name)
    if path is None or not path.exists():
        return None
    content = path.read_bytes()
    if content[:32] != digest:
        return None
    bits = np.frombuffer(content[32:], np.uint8)
    return np.unpackbits(bits, count=shard.summary.samples).astype(bool)


def _place(shard: Shard, name: str) -> tuple[Path | None, bytes]:
    """Returns (file of a mask, the digest it begins with)."""
    identity = f"{shard.summary.crc} {shard.summary.tar_bytes} {name}"
    digest = hashlib.sha256(identity.encode()).digest()
    path = Path(f"{shard.cache_path}.{digest[:4].hex()}.keep") if shard.cache_path else None
    return path, digest


def _passes(shard: Shard, ordinal: int, filters: list[Filter]) -> bool:
    _, members = shard.read(ordinal)
    try:
        record = json.loads(bytes(members.get("json", b"")))
    except ValueError:
        return False
    return all(test.passes(record) for test in filters)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
