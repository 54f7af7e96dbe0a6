"""Captions kept in memory as tokens, for runs that read no images (the prior).

A row is tokenised when it is first wanted and kept as uint16 [N, L] (154 bytes at L = 77), so later
epochs run at memory speed. Rows depend on nothing but the sample, so what order they are filled in
does not matter.
"""

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from unclip_jax.data.captions import choose_caption, read_captions
from unclip_jax.data.dataset import Dataset
from unclip_jax.data.fields import BadSample
from unclip_jax.text import tokenize

_MAX_BYTES = 1 << 30
_REASONS = ("", "caption_missing", "caption_empty")
_UNKNOWN = 255


class TokenTable:
    """Token rows of a data set, filled on demand."""

    def __init__(self, dataset: Dataset, context_length: int):
        self._dataset = dataset
        self._length = context_length
        self._rows = np.zeros((len(dataset), context_length), np.uint16)
        self._state = np.full(len(dataset), _UNKNOWN, np.uint8)

    def get(self, samples: Int[NDArray, "n"]) -> tuple[Int[np.ndarray, "n L"], NDArray[np.uint8]]:
        """Returns (tokens int32 [n, L], reason codes [n], 0 for a good row)."""
        unknown = np.unique(samples[self._state[samples] == _UNKNOWN])
        if unknown.size:
            self._read(unknown)
        return self._rows[samples].astype(np.int32), self._state[samples]

    def reason(self, code: int) -> str:
        return _REASONS[code]

    def _read(self, samples: NDArray) -> None:
        fields = self._dataset.fields
        captions, kept = [], []
        for sample in samples.tolist():
            _, members = self._dataset.read(sample)
            try:
                texts, _ = read_captions(members, fields.caption_fields)
                captions.append(choose_caption(texts, fields, 0))
                kept.append(sample)
            except BadSample as bad:
                self._state[sample] = _REASONS.index(bad.reason)
        if kept:
            self._rows[kept] = tokenize(captions, self._length)
            self._state[kept] = 0


def token_table(dataset: Dataset) -> TokenTable | None:
    """Returns a table for a data set that wants one and fits: no images, one caption, <= 1 GiB."""
    fields, length = dataset.fields, dataset.fields.context_length
    if fields.image_sizes or length is None or fields.is_random:
        return None
    return TokenTable(dataset, length) if len(dataset) * length * 2 <= _MAX_BYTES else None
