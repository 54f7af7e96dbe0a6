"""Samples -> arrays, with a bad sample replaced by another or masked.

In training a sample that cannot be used is substituted by one from the same shuffle window, drawn
by a hash of its position: a pure function of the data's bytes, so batches stay equal on any number
of hosts and after a restart, and no host runs out of batches early. In evaluation it is masked.
"""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unclip_jax.data.captions import choose_caption, read_captions
from unclip_jax.data.dataset import Dataset
from unclip_jax.data.embeddings import present
from unclip_jax.data.fields import BadSample, stored_name
from unclip_jax.data.images import CENTER, Crop, decode_image
from unclip_jax.data.keys import find_image
from unclip_jax.data.order import Order, mix
from unclip_jax.data.report import Event, Report
from unclip_jax.data.storage import ShardError
from unclip_jax.data.tokens import TokenTable
from unclip_jax.text import tokenize

MAX_SUBSTITUTES = 16
Arrays = dict[str, np.ndarray]


class Assembler:
    """Makes arrays from sample numbers; the seed is for crops, flips and choice of caption."""

    def __init__(self, dataset: Dataset, seed: int = 0, tokens: TokenTable | None = None):
        self.dataset = dataset
        self.seed = seed
        self._tokens = tokens

    def train_rows(
        self, order: Order, spans: Sequence[tuple[int, int, int]]
    ) -> tuple[Arrays, Report]:
        """Returns (arrays, report) for spans of (lane, first position, count), in that order."""
        places = [(lane, start + i) for lane, start, count in spans for i in range(count)]
        drawn = [order.samples(*span) for span in spans]
        epochs = np.concatenate([epochs for epochs, _ in drawn])
        samples = np.concatenate([samples for _, samples in drawn])
        arrays = self._empty(len(places))
        rows = np.arange(len(places))
        report = Report()
        for attempt in range(1, MAX_SUBSTITUTES + 2):
            bad = self._fill(arrays, rows, epochs, samples, report)
            if not bad.size:
                return arrays, report
            rows = rows[bad]
            redrawn = [order.substitute(*places[row], attempt) for row in rows]
            epochs, samples = (np.array(column) for column in zip(*redrawn, strict=True))
        last = report.events[-1]
        raise ShardError(
            f"{last.shard}: {MAX_SUBSTITUTES} samples drawn instead of a bad one were bad, "
            f"the last by {last.reason} {last.detail}; see `unclip data lint`"
        )

    def exact_rows(self, samples: NDArray[np.int64]) -> tuple[Arrays, Report]:
        """Returns (arrays, report) with "valid" bool [n]; rows of bad samples are zero."""
        arrays = self._empty(len(samples))
        valid = np.ones(len(samples), bool)
        report = Report()
        epochs = np.zeros(len(samples), np.int64)
        bad = self._fill(arrays, np.arange(len(samples)), epochs, samples, report)
        valid[bad] = False
        for array in arrays.values():
            array[bad] = 0
        return {**arrays, "valid": valid}, report

    def _empty(self, rows: int) -> Arrays:
        return {k: np.empty((rows, *s), dtype) for k, (s, dtype) in self.dataset.specs().items()}

    def _fill(self, arrays, rows, epochs, samples, report) -> NDArray[np.int64]:
        """Fills `rows` of the arrays and returns which entries of `rows` could not be."""
        good = np.ones(len(rows), bool)
        for kind in self.dataset.fields.embeddings:
            values = self.dataset.embedding_rows(kind, samples)
            array = arrays[stored_name(kind)]
            array[rows] = values.reshape(-1, *array.shape[1:])
            for i in np.flatnonzero(good & ~present(values)):
                report.events.append(
                    self._event(samples[i], "", BadSample(f"{stored_name(kind)}_missing"))
                )
                good[i] = False
        if self._tokens is not None:
            tokens, reasons = self._tokens.get(samples)
            arrays["tokens"][rows] = tokens
            for i in np.flatnonzero(good & (reasons != 0)):
                report.events.append(
                    self._event(samples[i], "", BadSample(self._tokens.reason(reasons[i])))
                )
                good[i] = False
        elif self.dataset.fields.image_sizes or self.dataset.fields.reads_text:
            self._read(arrays, rows, epochs, samples, good, report)
        return np.flatnonzero(~good)

    def _read(self, arrays, rows, epochs, samples, good, report) -> None:
        captions, captioned = [], []
        for i in np.flatnonzero(good):
            sample = int(samples[i])
            draw = mix(self.seed, int(epochs[i]), sample)
            start = time.perf_counter()
            key, members = self.dataset.read(sample)
            begun = time.perf_counter()
            report.add_read(sum(map(len, members.values())), begun - start)
            try:
                self._read_image(arrays, rows[i], members, draw)
                if self.dataset.fields.reads_text:
                    caption, mended = self._read_caption(members, draw)
                    captions.append(caption)
                    captioned.append(rows[i])
                    if mended:
                        report.events.append(self._event(sample, key, BadSample("caption_recoded")))
            except BadSample as bad:
                report.events.append(self._event(sample, key, bad))
                good[i] = False
            report.decode_seconds += time.perf_counter() - begun
        if captions:
            length = arrays["tokens"].shape[1]
            arrays["tokens"][captioned] = tokenize(captions, length)

    def _read_image(self, arrays: Arrays, row: int, members: dict, draw: int) -> None:
        fields = self.dataset.fields
        if not fields.image_sizes:
            return
        content = find_image(members)
        images = decode_image(
            b"" if content is None else content,
            fields.image_sizes,
            crop=self._crop(draw) if fields.is_random else CENTER,
            quality=fields.quality,
            min_side=fields.min_side,
            max_pixels=fields.max_pixels,
            max_aspect=fields.max_aspect,
        )
        for size, image in zip(fields.image_sizes, images, strict=True):
            arrays[f"image_{size}"][row] = image[self._window(draw, size)]

    def _read_caption(self, members: dict, draw: int) -> tuple[str, bool]:
        captions, mended = read_captions(members, self.dataset.fields.caption_fields)
        return choose_caption(captions, self.dataset.fields, mix(draw, 4)), mended

    def _crop(self, draw: int) -> Crop:
        fields = self.dataset.fields
        scale, x, y = (mix(draw, i) / 2**64 for i in range(3))
        flip = fields.flip and mix(draw, 3) % 2 == 1
        if fields.crop == "center":
            return Crop(flip=flip)
        return Crop(fields.min_crop + (1 - fields.min_crop) * scale, x, y, flip)

    def _window(self, draw: int, size: int) -> tuple[slice, ...]:
        """Where the wanted part of a picture lies."""
        window = self.dataset.fields.window
        if window is None:
            return ()
        places = (size - window.side) // window.grid + 1
        starts = (window.grid * (mix(draw, i) % places) for i in (5, 6))
        return tuple(slice(start, start + window.side) for start in starts)

    def _event(self, sample: int, key: str, bad: BadSample) -> Event:
        number, ordinal = self.dataset.locate(int(sample))
        return Event(bad.reason, self.dataset.shards[number].path, ordinal, key, bad.detail)
