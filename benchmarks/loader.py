"""Samples a CPU second: this loader beside webdataset's own path, on the same shard.

    python benchmarks/loader.py [--samples 2000] [--seconds 4] [--runs 5]

Input: one shard of 256 px JPEG (quality 95, 4:2:0), caption and json, written by webdataset's
TarWriter. The pictures are noise whose spectrum falls so that a file has 28 KB, as photographs of
this size and quality have: then JPEG has as much to do. All in one thread, in CPU seconds, since
machines are shared; median, least and most of the runs. Results go to
benchmarks/results/loader.json.
"""

import argparse
import datetime
import io
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from unclip_jax.data import BatchFields, open_dataset
from unclip_jax.data.assembly import Assembler
from unclip_jax.data.order import Layout, Order
from unclip_jax.data.tokens import token_table

BATCH = 64
FALL = 1.6  # amplitude ~ 1 / frequency ** FALL
RESULTS = Path(__file__).parent / "results" / "loader.json"


def photo_like(rng: np.random.Generator, side: int = 256) -> np.ndarray:
    """Three correlated channels of coloured noise, uint8 [side, side, 3]."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = rng.normal(size=(4, *frequency.shape)) + 1j * rng.normal(size=(4, *frequency.shape))
    waves = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / side) ** FALL, s=(side, side))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    channels = waves[:1] * 45 + waves[1:] * 18 + 128
    return channels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def write_shard(path: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(min(samples, 100)):
        buffer = io.BytesIO()
        Image.fromarray(photo_like(rng)).save(buffer, "JPEG", quality=95, subsampling=2)
        pictures.append(buffer.getvalue())
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(samples):
            caption = f"a photo number {i} of something nice on a table"
            record = {"key": f"{i:09d}", "status": "success", "width": 256, "height": 256}
            writer.write(
                {"__key__": f"{i:09d}", "jpg": pictures[i % 100], "txt": caption, "json": record}
            )


def ours(shard: Path, fields: BatchFields) -> Iterator[int]:
    """Yields the batch size for each shuffled batch that was put together."""
    dataset = open_dataset(str(shard), fields)
    assembler = Assembler(dataset, 0, token_table(dataset))
    order = Order(dataset.counts, Layout(BATCH), seed=0)
    for position in itertools.count():
        arrays, _ = assembler.train_rows(order, [(lane, position, 1) for lane in range(BATCH)])
        yield len(next(iter(arrays.values())))


def theirs(shard: Path, side: int) -> Iterator[int]:
    """webdataset as its documentation shows it: decode("pil"), resize, batch; no shuffle."""

    def picture(sample):
        image = sample["jpg"].convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(image), sample["txt"]

    stream = webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil").map(picture)
    while True:
        for batch in stream.batched(BATCH, partial=False):
            yield len(np.stack(batch[0]))


def rate(batches: Iterator[int], seconds: float, runs: int) -> dict[str, float]:
    """Returns samples a CPU second, after a first batch that is not counted."""
    next(batches)
    rates = []
    for _ in range(runs):
        start, samples = time.process_time(), 0
        while time.process_time() - start < seconds / runs:
            samples += next(batches)
        rates.append(samples / (time.process_time() - start))
    return {"median": statistics.median(rates), "least": min(rates), "most": max(rates)}


def cases(shard: Path) -> dict[str, Callable[[], Iterator[int]]]:
    def fields(*sizes: int, **options) -> BatchFields:
        return BatchFields(image_sizes=sizes, context_length=77, **options)

    return {
        "webdataset decode(pil), 64": lambda: theirs(shard, 64),
        "webdataset decode(pil), 256": lambda: theirs(shard, 256),
        "unclip_jax, 64 + tokens": lambda: ours(shard, fields(64)),
        "unclip_jax, 256 + tokens": lambda: ours(shard, fields(256)),
        "unclip_jax, 64 and 256 + tokens": lambda: ours(shard, fields(64, 256)),
        "unclip_jax, 64 + tokens, quality 2": lambda: ours(shard, fields(64, quality=2)),
        "unclip_jax, tokens only": lambda: ours(shard, fields()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=4, help="CPU seconds for each case")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "00000.tar"
        write_shard(shard, args.samples)
        size = shard.stat().st_size / args.samples
        for name, start in cases(shard).items():
            results[name] = rate(start(), args.seconds, args.runs)
            print(f"{name:36} {results[name]['median']:9.0f} samples / CPU s", flush=True)
    ratios = {
        side: results[f"unclip_jax, {side} + tokens"]["median"]
        / results[f"webdataset decode(pil), {side}"]["median"]
        for side in ("64", "256")
    }
    print("  ".join(f"{side} px: {ratio:.1f} x webdataset" for side, ratio in ratios.items()))
    RESULTS.parent.mkdir(exist_ok=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "bytes_a_sample": round(size),
        "samples_per_cpu_second": results,
        "times_webdataset": ratios,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
